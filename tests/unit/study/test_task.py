"""The task of a config, as the shipped ones and changed ones say it."""

from pathlib import Path

import pytest

from twotower.core.loading import load_config, with_overrides
from twotower.study.task import task_of

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("debian", "item to item"),
        ("wikispeedia", "item to item"),
        ("musae_facebook", "item to item"),
        ("movietweetings", "personalised ranking"),  # a user's id, and a mean over what they took
        ("completejourney", "personalised ranking"),
        ("gmf_completejourney", "personalised ranking"),
        ("neumf_completejourney", "personalised ranking"),
        ("sasrec_movietweetings", "sequence"),
    ],
)
def test_the_shipped_configs(name: str, task: str) -> None:
    assert task_of(load_config(CONFIGS / f"{name}.yaml").config) == task


@pytest.mark.parametrize(
    ("name", "kept", "changes", "task"),
    [
        ("completejourney", ["age", "income"], {}, "query to item"),
        ("completejourney", ["age", "history"], {}, "personalised ranking"),
        ("completejourney", ["age", "household"], {}, "personalised ranking"),
        ("completejourney", ["history"], {"model.history": "attention"}, "sequence"),
        ("movietweetings", ["user"], {}, "personalised ranking"),
    ],
)
def test_what_queries_are_read_by_decides(
    name: str, kept: list[str], changes: dict[str, str], task: str
) -> None:
    config = load_config(CONFIGS / f"{name}.yaml").config
    features = config.data.features
    query = {key: feature for key, feature in features.query.items() if key in kept}
    fewer = features.model_copy(update={"query": query})
    data = config.data.model_copy(update={"features": fewer})
    config = with_overrides(config.model_copy(update={"data": data}), changes)
    assert task_of(config) == task
