"""The winner is a config file that reads back equal, and another search is not written over."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_config import tiny_config
from twotower.core.errors import ConfigError, InputError
from twotower.core.loading import build_config, load_config, parse_yaml, with_overrides
from twotower.core.space_loading import build_space
from twotower.core.storage import Store
from twotower.runtime.journal import Trial
from twotower.runtime.search_files import (
    RESULT,
    WINNER,
    SearchSubject,
    read_result,
    read_subject,
    winner_config,
    winner_text,
    write_result,
    write_subject,
)

SPACE = {"ssl.weight": {"low": 0.03, "high": 3.0}, "model.hidden": {"choices": [[8], [16, 8]]}}
SPACES = build_space(SPACE, tiny_config(), "space.yaml")
FACTS = {"seconds": 12.5, "total": 2, "sampler": "TPE", "scheduler": "ASHA"}
TRIALS = (
    Trial(0, {"ssl.weight": 1.25e-05 + 0.03, "model.hidden": [16, 8]}, "complete", 0.5, 2),
    Trial(1, {"ssl.weight": 1.0, "model.hidden": [8]}, "diverged", error="step 3: not finite"),
    Trial(2, {"ssl.weight": 2.0, "model.hidden": [8]}),
)


def subject_of(**changes: Any) -> SearchSubject:
    config = tiny_config(**changes)
    return SearchSubject(config, SPACES)


def test_the_winner_is_a_file_that_train_reads(tmp_path: Path) -> None:
    subject, store = subject_of(), Store(tmp_path)
    document = write_result(store, subject, TRIALS, FACTS)
    loaded = load_config(tmp_path / WINNER).config
    assert loaded == winner_config(subject, TRIALS[0])
    assert (loaded.model.hidden, loaded.name) == ((16, 8), "tiny-tuned")
    assert loaded.ssl.weight == TRIALS[0].params["ssl.weight"]
    header = (tmp_path / WINNER).read_text().splitlines()[:6]
    assert all(line.startswith("# ") for line in header)
    assert f"twotower train {tmp_path}/best.yaml" in header[2]
    assert "0.5000" in header[4]
    assert document["best"] == 0
    assert [t["number"] for t in document["trials"]] == [0, 1]
    assert document["counts"] == {"complete": 1, "pruned": 0, "failed": 0, "diverged": 1}
    assert document == read_result(store, subject) | {"trials": document["trials"]}


def test_without_a_value_there_is_no_winner(tmp_path: Path) -> None:
    document = write_result(Store(tmp_path), subject_of(), TRIALS[1:], FACTS)
    assert (document["best"], document["winner"]) == (None, None)
    assert not (tmp_path / WINNER).exists()


def test_another_config_or_space_is_refused_with_the_difference(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert read_result(store, subject_of()) == {}
    write_result(store, subject_of(), TRIALS, FACTS)
    assert read_result(store, subject_of(train__num_workers=2))["total"] == 2
    with pytest.raises(ConfigError, match=r"another search \(config\.seed: 0 -> 5"):
        read_result(store, subject_of(seed=5))
    (tmp_path / RESULT).write_text("{}")
    with pytest.raises(ConfigError, match="another search"):
        read_result(store, subject_of())


@settings(max_examples=40, deadline=None)
@given(column=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), min_size=1))
def test_any_text_survives_the_file(column: str) -> None:
    check_text(column)


@pytest.mark.parametrize(
    "column", ["1e3", "0x1f", "no", "null", "~", ".5", "-1", "true", "2020-01-01", "1_000", "="]
)
def test_words_of_yaml_survive_the_file(column: str) -> None:
    check_text(column)


def check_text(column: str) -> None:
    base = tiny_config().model_dump(mode="json")
    base["data"]["features"]["item"]["f0"]["column"] = column
    config = build_config(base, "text")
    text = winner_text(SearchSubject(config, SPACES), TRIALS[0], "# header\n")
    found = build_config(parse_yaml(text, "text"), "text")
    assert found.data.features.item["f0"].column == column
    assert with_overrides(found, {"name": "tiny"}).data == config.data


def test_a_search_can_go_on_from_its_directory_alone(tmp_path: Path) -> None:
    subject, store = subject_of(storage__runs="elsewhere"), Store(tmp_path)
    with pytest.raises(InputError, match=r"holds no search \(no search\.json\)"):
        read_subject(store)
    write_subject(store, subject)
    write_result(store, subject, TRIALS, FACTS)
    assert read_subject(store) == (subject, 2)
