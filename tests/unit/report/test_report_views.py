import pytest

from twotower.core.config import ExperimentConfig
from twotower.report import formats, views
from twotower.report.content import Report, Search, Trial
from twotower.report.figures import best_so_far, search_parameters


def test_only_keys_away_from_their_defaults_are_listed(demo_report: Report) -> None:
    rows = {row.key: row for row in views.config_rows(demo_report.runs)}
    assert rows["ssl.weight"].values == ["0", "0.3", "0.82"]
    assert rows["ssl.weight"].default == "0"
    assert rows["ssl.weight"].varies
    assert rows["ssl.weight"].source == "--set"
    assert rows["loss.temperature"].values == ["0.05"] * 3
    assert rows["loss.temperature"].shown == ["0.05"]
    assert not rows["loss.temperature"].varies
    assert rows["data.items.path"].default == "required"
    assert "model.embed_dim" not in rows
    assert [row.varies for row in views.config_rows(demo_report.runs)] == sorted(
        (row.varies for row in rows.values()), reverse=True
    )


def test_columns_stand_under_what_they_have_in_common(demo_report: Report) -> None:
    shown = ["recall@10", "recall@50", "head_recall@50", "tail_recall@50"]
    table = views.method_table(demo_report, shown)
    assert table.groups == [("All pairs", 2), ("Recall@50 by slice", 2)]
    assert table.columns == ["Recall@10", "Recall@50", "Head", "Tail"]
    rest = views.method_table(demo_report, views.other_metrics(demo_report, shown))
    assert rest.groups[0] == ("All pairs", 3)
    assert ("Head", 3) in rest.groups
    assert sum(span for _, span in rest.groups) == len(rest.columns)


def test_coverage_has_no_best(demo_report: Report) -> None:
    table = views.method_table(demo_report, ["coverage@10"])
    assert {cell.standing for _, _, cells in table.rows for cell in cells} == {"other"}


def test_defaults_are_those_of_the_schema() -> None:
    defaults = views.default_leaves(ExperimentConfig)
    assert defaults["loss.temperature"] == 0.07
    assert defaults["data.split.kind"] == "random"
    assert "name" not in defaults


def test_the_certificate_says_whether_numbers_compare(demo_report: Report) -> None:
    assert views.certificate_verdict(demo_report.methods).startswith("All protocols are equal")
    rows = views.certificate_rows(demo_report.methods, "protocol")
    assert all(equal for _, _, equal in rows)


def test_trials_without_a_value_come_last() -> None:
    trials = [
        Trial(0, "failed", {"a": 1}, None, error="out of memory"),
        Trial(1, "complete", {"a": 0.123456}, 0.2),
        Trial(2, "complete", {"b": "x"}, 0.3),
    ]
    names, rows = views.trial_rows(trials)
    assert names == ["a", "b"]
    assert [row[0] for row in rows] == ["2", "1", "0"]
    assert rows[1][2] == "0.123"
    assert rows[2][-1] == "failed: out of memory"


def test_best_so_far_never_falls_and_skips_failures() -> None:
    values = [0.1, None, 0.3, 0.2]
    trials = [Trial(i, "complete", {}, value) for i, value in enumerate(values)]
    assert best_so_far(trials[::-1]) == [(0.0, 0.1), (2.0, 0.3), (3.0, 0.3)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.4, "0.4 s"),
        (12.3, "12 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations(value: float, shown: str) -> None:
    assert formats.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1200.0, "1.2k"), (3.1e-5, "3.1e-5"), (0.25, "0.25"), (4e6, "4M"), (-0.5, "-0.5")],
)
def test_compact_numbers(value: float, shown: str) -> None:
    assert formats.compact(value) == shown


def test_metric_names_are_readable() -> None:
    assert formats.metric_label("tail_recall@50") == "Tail Recall@50"
    assert formats.metric_label("not_head_map@10") == "Not head MAP@10"
    assert formats.metric_label("loss") == "loss"
    assert formats.score(-0.00001, signed=True) == "0.0000"


def test_named_choices_stand_in_their_order_and_ordered_ones_on_an_axis() -> None:
    space = {
        "optimizer": {"kind": "choice", "choices": ["sgd", "adagrad"]},
        "rate": {"kind": "choice", "choices": [0.25, 0.5], "ordered": True},
    }
    trials = tuple(
        Trial(i, "complete", {"optimizer": name, "rate": rate}, 0.1 * i)
        for i, (name, rate) in enumerate([("adagrad", 0.5), ("sgd", 0.25)])
    )
    named, axis = search_parameters(Search("s", "recall@50", trials, space, {}, 1, {}))
    assert named.svg.index(">sgd</text>") < named.svg.index(">adagrad</text>")
    assert ">0.5</text>" not in named.svg
    assert ">0.4</text>" in axis.svg or ">0.40</text>" in axis.svg
