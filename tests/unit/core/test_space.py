"""Search spaces are checked whole before a trial starts, and equal mask rates are one point."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_config import tiny_config
from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError
from twotower.core.loading import with_overrides
from twotower.core.space import SearchSpace
from twotower.core.space_loading import build_space, load_space

ROOT = Path(__file__).parents[3]


def config_with(num_features: int = 9, **ssl: Any) -> ExperimentConfig:
    return tiny_config(num_features, **{f"ssl__{key}": value for key, value in ssl.items()})


def space_of(document: Any, config: ExperimentConfig | None = None) -> SearchSpace:
    return build_space(document, config or config_with(), "space.yaml")


BROKEN = {
    "unknown path": ({"ssl.wieght": {"low": 0.1, "high": 1.0}}, "ssl.weight"),
    "section": ({"ssl": {"low": 0.1, "high": 1.0}}, "is a section"),
    "unknown key": ({"ssl.weight": {"low": 0.1, "hihg": 1.0}}, "ssl.weight.hihg"),
    "no spec": ({"ssl.weight": 3}, "low: , high:"),
    "both kinds": ({"ssl.weight": {"low": 1, "choices": [1, 2]}}, "ssl.weight"),
    "low above high": ({"ssl.weight": {"low": 2.0, "high": 1.0}}, "ssl.weight.low"),
    "log of zero": ({"ssl.weight": {"low": 0, "high": 1, "scale": "log"}}, "low > 0"),
    "text": ({"ssl.weight": {"low": "a", "high": 1}}, "ssl.weight.low"),
    "number as text": ({"ssl.weight": {"low": "1", "high": 2}}, "ssl.weight.low"),
    "infinite": ({"ssl.weight": {"low": 0.1, "high": float("inf")}}, "ssl.weight.high"),
    "out of range": ({"ssl.temperature": {"low": 0.0, "high": 1.0}}, "ssl.temperature"),
    "mask rate 1": ({"ssl.mask_rate": {"low": 0.1, "high": 1.0}}, "ssl.mask_rate"),
    "unknown choice": ({"ssl.masking": {"choices": ["rfm", "cfn"]}}, "ssl.masking"),
    "one choice": ({"ssl.masking": {"choices": ["rfm"]}}, "ssl.masking.choices"),
    "repeated choice": ({"ssl.masking": {"choices": ["rfm", "rfm"]}}, "'rfm' stands twice"),
    "range of words": ({"ssl.masking": {"low": 0, "high": 1}}, "is not a number"),
    "fraction of an integer": ({"model.out_dim": {"low": 8.5, "high": 64}}, "whole number"),
    "off the lanes": ({"train.batch_size": {"low": 64, "high": 512}}, "train.batch_size"),
    "step wider": ({"model.out_dim": {"low": 8, "high": 16, "step": 32}}, "model.out_dim.step"),
    "data": ({"data.fraction": {"low": 0.1, "high": 1.0}}, "one prepared dataset"),
    "feature": ({"data.features.item.f0.max_size": {"low": 1, "high": 9}}, "one prepared"),
    "seed": ({"seed": {"low": 0, "high": 9}}, "luckiest"),
    "metric": ({"eval.select": {"choices": ["recall@10", "recall@50"]}}, "compared by"),
    "budget": ({"train.num_epochs": {"low": 1, "high": 9}}, "budget"),
    "workers": ({"train.num_workers": {"choices": [1, 2]}}, "place of a run"),
    "empty": ({}, "at least one"),
    "list": ([1], "mapping"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_space_is_refused_with_its_file_and_key(name: str) -> None:
    document, told = BROKEN[name]
    with pytest.raises(ConfigError) as error:
        space_of(document)
    assert str(error.value).startswith("space.yaml: ")
    assert told in str(error.value)


def test_combination_that_makes_no_config_is_refused_with_the_point() -> None:
    document = {
        "ssl.masking": {"choices": ["cfm", "none"]},
        "ssl.dropout_rate": {"low": 0.0, "high": 0.5},
    }
    with pytest.raises(ConfigError, match=r"two equal views.*ssl\.masking = 'none'"):
        space_of(document)
    document["ssl.dropout_rate"] = {"low": 0.1, "high": 0.5}
    multi = with_overrides(config_with(), {"data.features.item.f0": {"kind": "multi"}})
    assert space_of(document, multi).size is None


def test_dimension_without_effect_is_refused() -> None:
    document: dict[str, Any] = {"ssl.temperature": {"low": 0.1, "high": 1.0}}
    with pytest.raises(ConfigError, match=r"no effect while ssl\.weight is 0"):
        space_of(document, config_with(weight=0.0))
    document["ssl.weight"] = {"low": 0.1, "high": 1.0}
    assert len(space_of(document, config_with(weight=0.0)).dimensions) == 2


@pytest.mark.parametrize(
    ("switch", "kinds", "path"),
    [
        ("loss.spread_out", ["softmax", "squared"], "loss.spread_out_weight"),
        ("loss.logq", ["streaming"], "loss.logq_rate"),
    ],
)
def test_the_key_of_a_term_that_is_off_is_searched_with_its_switch_only(
    switch: str, kinds: list[str], path: str
) -> None:
    document: dict[str, Any] = {path: {"low": 0.1, "high": 1.0}}
    with pytest.raises(ConfigError, match=rf"{path}: .* is for .*not none.*can draw {path}"):
        space_of(document)
    on = with_overrides(config_with(), {switch: kinds[0]})
    assert space_of(document, on).size is None
    if len(kinds) > 1:
        document[switch] = {"choices": kinds}
        point = {path: 0.5, switch: kinds[1]}
        assert space_of(document).apply(config_with(), point) == with_overrides(on, point)


@pytest.mark.parametrize(("k", "rates"), [(2, [0.5]), (4, [0.25, 0.5, 0.75])])
def test_mask_rates_are_one_point_for_each_number_of_features(k: int, rates: list[float]) -> None:
    space = space_of({"ssl.mask_rate": {"low": 0.1, "high": 0.9}}, config_with(k))
    assert list(space.dimensions[0].values) == rates
    assert space.size == len(rates)


@settings(max_examples=15, deadline=None)
@given(k=st.integers(2, 30), low=st.floats(0.01, 0.9), width=st.floats(0.01, 0.09))
def test_representative_rates_reach_every_count_once(k: int, low: float, width: float) -> None:
    config, high = config_with(k), low + width
    space = space_of({"ssl.mask_rate": {"low": low, "high": high}}, config)
    counts = [
        space.apply(config, {"ssl.mask_rate": r}).num_masked() for r in space.dimensions[0].values
    ]
    grid = [low + width * i / 100 for i in range(101)]
    reached = {space.apply(config, {"ssl.mask_rate": min(r, high)}).num_masked() for r in grid}
    assert counts == sorted(reached)
    assert all(low <= rate <= high for rate in space.dimensions[0].values)


def test_listed_mask_rates_that_mask_alike_are_merged() -> None:
    space = space_of({"ssl.mask_rate": {"choices": [0.5, 0.49, "paper", 0.2]}}, config_with(4))
    assert list(space.dimensions[0].values) == [0.2, 0.5, "paper"]


def test_values_survive_the_way_to_a_draw_and_back() -> None:
    space = space_of(
        {
            "ssl.weight": {"low": 0.03, "high": 3.0, "scale": "log"},
            "model.hidden": {"choices": [[64], [128, 64]]},
            "model.out_dim": {"low": 8, "high": 64, "step": 8},
            "ssl.mask_rate": {"low": 0.1, "high": 0.9},
        }
    )
    weight, hidden, out_dim, rate = space.dimensions
    assert weight.value(0.123456789) == 0.1235
    assert weight.value(0.0299999) == 0.03
    assert hidden.raw([128, 64]) == 1
    assert (out_dim.value(16.0), out_dim.size) == (16, 8)
    for dimension in space.dimensions:
        for value in dimension.ends():
            assert dimension.value(dimension.raw(value)) == value
    with pytest.raises(ValueError, match="outside"):
        weight.raw(5.0)
    trial = space.apply(config_with(), {"model.hidden": hidden.values[1], "model.out_dim": 16})
    assert (trial.model.hidden, trial.model.out_dim, trial.ssl.weight) == ((128, 64), 16, 1.0)
    assert rate.size == 8


def test_the_configs_own_point_is_known_where_it_lies_inside() -> None:
    document = {
        "ssl.weight": {"low": 0.1, "high": 3.0},
        "ssl.mask_rate": {"low": 0.1, "high": 0.9},
    }
    inside = config_with(4, mask_rate=0.45)
    assert space_of(document, inside).own_point(inside) == {
        "ssl.weight": 1.0,
        "ssl.mask_rate": 0.5,
    }
    outside = config_with(4, weight=0.0)
    assert space_of(document, outside).own_point(outside) is None
    text = config_with(4, mask_rate="paper")
    assert space_of(document, text).own_point(text) == {"ssl.weight": 1.0, "ssl.mask_rate": 0.75}


def test_the_shipped_space_fits_and_a_missing_file_is_named() -> None:
    space = load_space(ROOT / "configs/spaces/ssl.yaml", config_with(weight=0.0))
    assert [d.path for d in space.dimensions] == [
        "ssl.weight",
        "ssl.temperature",
        "ssl.mask_rate",
        "ssl.dropout_rate",
    ]
    with pytest.raises(ConfigError, match="no such space file; this folder has"):
        load_space(ROOT / "configs/spaces/sls.yaml", config_with())


def test_a_table_is_searched_by_the_keys_of_its_kind() -> None:
    large = {"kind": "mgqe", "num_subspaces": 8}
    config = tiny_config(9, model__embeddings={"large": large})
    path = "model.embeddings.large.num_subspaces"
    space = space_of(
        {path: {"choices": [4, 8]}, "model.embeddings.large.commitment": {"low": 0, "high": 1}},
        config,
    )
    assert space.own_point(config) == {path: 8, "model.embeddings.large.commitment": 0.0}
    found = space.apply(config, {path: 4}).model.embeddings.large
    assert found is not None
    assert found.num_subspaces == 4  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="unknown config path"):
        space_of({"model.embeddings.large.rank": {"choices": [4, 8]}}, config)
    with pytest.raises(ConfigError, match="does not divide embed_dim"):
        space_of({path: {"choices": [8, 5]}}, config)
