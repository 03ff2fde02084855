"""Which kind each table has, and what is refused."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from tiny_catalogue import tiny_experiment
from twotower.core import embedding_config
from twotower.core.errors import ConfigError
from twotower.core.loading import load_config, with_overrides
from twotower.core.records import identity, run_name

TABLES = {"item.id": 5000, "item.tags": 4096, "item.brand": 4095, "query.id": 9000}


def test_what_is_named_goes_before_what_is_large() -> None:
    config = tiny_experiment(
        model__embeddings={
            "large": {"kind": "mgqe", "num_subspaces": 2},
            "item": {"id": {"kind": "full"}, "brand": {"kind": "scalar"}},
        }
    )
    kinds = {name: kind.kind for name, kind in config.embeddings(TABLES).items()}
    assert kinds == {"item.tags": "mgqe", "item.brand": "scalar", "query.id": "mgqe"}
    assert tiny_experiment().embeddings(TABLES) == {}


@pytest.mark.parametrize(
    ("embeddings", "told"),
    [
        ({"large": {"kind": "dpq_vq"}}, "large.num_subspaces: 8 does not divide embed_dim"),
        ({"item": {"id": {"kind": "low_rank", "rank": 9}}}, "item.id.rank: 9 is above embed_dim"),
        ({"item": {"price": {"kind": "scalar"}}}, "item.price: a dense feature has no table"),
        ({"item": {"nothing": {"kind": "scalar"}}}, "no item feature 'nothing'"),
        ({"query": {"likes": {"kind": "scalar"}}}, "set model.embeddings.item.tags"),
        ({"item": {"id": {"kind": "scalar", "bit": 4}}}, "did you mean 'bits'"),
        ({"item": {"id": {"kind": "dpq"}}}, "'dpq'"),
        ({"item": {"id": {}}}, "model.embeddings.item.id.kind: is required"),
        (
            {"item": {"id": {"kind": "mgqe", "num_centroids": 3}}},
            "num_centroids: unknown key; did you mean 'num_subspaces'?",
        ),
        ({"item": {"id": {"kind": "hashed", "momentum": 1}}}, "known keys: hashes, kind, share"),
        (
            {"item": {"id": {"kind": "mgqe", "tiers": [{"share": 0.5, "num_centroids": 4}]}}},
            "shares must sum to 1, got 0.5",
        ),
    ],
)
def test_errors_name_the_key_and_the_mend(embeddings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny_experiment(model__embeddings=embeddings)
    assert told in str(caught.value)


def test_the_example_of_the_module_fits_the_debian_config() -> None:
    told = (embedding_config.__doc__ or "").partition("YAML:\n")[2]
    tables = yaml.safe_load(dedent(told))["model"]["embeddings"]
    debian = load_config(Path(__file__).parents[3] / "configs" / "debian.yaml").config
    config = with_overrides(debian, {"model.embeddings": tables})
    kinds = {name: kind.kind for name, kind in config.model.embeddings.item.items()}
    assert kinds == {"package": "mgqe", "summary_words": "low_rank"}


def test_a_newer_key_at_its_default_is_no_part_of_a_run() -> None:
    """A name made before `model.embeddings` was there."""
    plain = tiny_experiment()
    assert "embeddings" not in identity(plain)["model"]
    assert run_name(plain) == run_name(tiny_experiment(model__embeddings={"item": {}}))
    changed = tiny_experiment(model__embeddings={"item": {"id": {"kind": "scalar"}}})
    assert run_name(plain) != run_name(changed)
