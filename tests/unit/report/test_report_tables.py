import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console, RenderableType

from twotower.core.errors import DataError
from twotower.evaluation import significance
from twotower.report import tables
from twotower.report.collect import collect
from twotower.report.content import Report
from twotower.runtime.assess import Comparison
from twotower.runtime.doctor import Check


def printed(table: RenderableType, width: int = 80) -> str:
    stream = StringIO()
    Console(file=stream, width=width, highlight=False).print(table)
    return stream.getvalue()


def test_methods_fit_a_plain_terminal_on_one_line_each(demo_report: Report) -> None:
    lines = printed(tables.methods_table(demo_report)).splitlines()
    rows = {line.split("  ")[0].strip(): line for line in lines}
    for name in ("popularity", "content", "item knn", "baseline", "cfm"):
        assert any(line.startswith(name) and "±" in line for line in lines), name
    assert len(rows) >= 6
    assert max(len(line.rstrip()) for line in lines) <= 80
    value = demo_report.methods[-1].evaluation.summary["recall@10"].value
    tuned = next(line for line in lines if line.startswith("cfm tuned"))
    assert f"{value:.3f}" in tuned


def test_ties_are_marked(demo_report: Report) -> None:
    text = printed(
        tables.methods_table(demo_report, ["recall@10", "recall@50", "unseen_recall@50"])
    )
    assert "≈" in text
    assert "not distinguishable" in " ".join(text.split())


def test_slices_say_how_many_queries_they_have(demo_files: dict[str, Path]) -> None:
    document = json.loads((demo_files["cfm"] / "evaluation/test.json").read_text())
    lines = printed(tables.slices_table(document["summary"])).splitlines()
    assert any(line.startswith("all") and " 900 " in line for line in lines)
    assert any(line.startswith("tail (last 50 %)") for line in lines)


def test_runs_are_compared_with_their_reference_in_eighty_columns() -> None:
    values = {
        "recall@50": np.array([1.0, 0.0, 1.0, 0.0]),
        "tail_recall@50": np.array([1.0, 0, 0, 0]),
    }
    other = {key: 1 - column for key, column in values.items()}
    gaps = significance.paired(values, other, significance.Comparison(resamples=0))
    found = Comparison("test", "debian-[red]a", 0.95, {"debian-tuned-1a2b3c4d": gaps})
    text = printed(tables.comparison_table(found))
    assert "debian-tuned-1a2b3c4d less debian-[red]a, on test" in text
    assert "Tail Recall@50" in text
    rows = [line for line in text.splitlines() if "Recall" in line]
    assert [line.split()[-1] for line in rows] == ["yes", "yes"]
    assert "0.2500" in rows[1]


def test_trials_are_listed_best_first(demo_files: dict[str, Path]) -> None:
    text = printed(tables.trials_table(demo_files["search"]))
    values = [
        float(line.split()[1])
        for line in text.splitlines()
        if line.endswith(("complete", "pruned"))
    ]
    assert values == sorted(values, reverse=True)
    assert len(values) == 10


def test_trials_of_no_search_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no search\.json"):
        tables.trials_table(tmp_path)


def test_one_run_stands_under_its_baselines(demo_files: dict[str, Path]) -> None:
    text = printed(tables.run_table(demo_files["baseline"]))
    assert text.index("popularity") < text.index("debian-baseline")


def test_prepared_data_shows_its_parts_and_what_was_left_out(
    demo_files: dict[str, Path],
) -> None:
    lines = printed(tables.prepared_table(demo_files["prepared"])).splitlines()
    assert any(line.split()[-2:] == ["train", "pairs"] for line in lines)
    assert any("12 rows left out: unknown item" in " ".join(line.split()) for line in lines)


def test_checks_say_what_to_do() -> None:
    checks = [Check("disk", "fail", "1 GiB free [b]", "make room"), Check("python", "ok", "3.11")]
    text = printed(tables.checks_table(checks))
    assert "1 GiB free [b]; make room" in text


def test_names_are_no_console_markup(own_files: Callable[[], dict[str, Path]]) -> None:
    report = collect({"[red]x[/red]\x1b[31m": own_files()["cfm"]})
    text = printed(tables.methods_table(report))
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_value_at_reads_dotted_paths() -> None:
    assert tables.value_at({"a": {"b": 3}}, "a.b") == 3
    with pytest.raises(KeyError, match=r"a\.c"):
        tables.value_at({"a": {"b": 3}}, "a.c")
