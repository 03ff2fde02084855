"""A study on the console: text of its file as it stands there, its page on a line of its own."""

import pytest

from study_files import study_claims, study_tables
from twotower.study.console import print_study

CLAIM = "CFM helps [tail] items [/b] :smile:"
FOLDER = f"{'a rather long folder/' * 8}[red]little"


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    tables = study_tables()
    claims = [claim | {"claim": CLAIM} for claim in study_claims(tables) if claim["fraction"]]
    more = {"claims": claims, "folder": FOLDER, "seeds": [101], "not_compared": []}
    print_study({**tables, **more})
    return capsys.readouterr().out


def test_a_claim_is_no_markup_and_the_page_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys)
    assert CLAIM in shown
    *_, runs, page = shown.splitlines()
    assert runs.endswith(" runs")
    assert page == f"{FOLDER}/index.html"


def test_names_are_whole_in_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("twotower.core.console._WIDTH", 80)
    shown = printed(capsys)
    assert max(len(line) for line in shown.splitlines()[:-1]) == 80
    assert "…" not in shown
