"""A plan that can't be is refused where it is made; a search's own plan is read back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiny_config import tiny_config
from twotower.core.errors import InputError
from twotower.core.space_loading import build_space
from twotower.core.storage import Store
from twotower.runtime.search_files import RESULT, SearchSubject, write_result
from twotower.runtime.search_plan import SearchPlan, read_plan

SPACE = build_space({"ssl.weight": {"low": 0.03, "high": 3.0}}, tiny_config(), "space")


@pytest.mark.parametrize("name", ["../escape", "/abs", "", "A", "a..b", "a/b", "x" * 200])
def test_a_name_that_is_no_directory_s_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"^name "):
        SearchPlan(2, name=name)


@pytest.mark.parametrize("number", [0, -3])
def test_a_number_below_one_is_refused(number: int) -> None:
    with pytest.raises(InputError, match=rf"^trials: at least 1, got {number}$"):
        SearchPlan(number)
    with pytest.raises(InputError, match=rf"^trials: at least 1, got {number}$"):
        replace(SearchPlan(2), trials=number)
    with pytest.raises(InputError, match=rf"^max_concurrent: at least 1, got {number}; leave it"):
        SearchPlan(2, max_concurrent=number)


@pytest.mark.parametrize(
    ("facts", "plan"),
    [
        (
            {"scheduler": None, "max_concurrent": 1},
            SearchPlan(5, "s", max_concurrent=1, prune=False),
        ),
        ({"scheduler": "ASHA", "max_concurrent": None}, SearchPlan(5, "s")),
        ({"scheduler": None}, SearchPlan(5, "s", prune=False)),
        ({}, SearchPlan(5, "s")),
    ],
    ids=["whole", "defaults", "no width kept", "nothing kept"],
)
def test_a_search_goes_on_with_its_own_plan(
    tmp_path: Path, facts: dict[str, Any], plan: SearchPlan
) -> None:
    store = Store(tmp_path)
    subject = SearchSubject(tiny_config(), SPACE)
    write_result(store, subject, (), {"seconds": 0.0, "total": 5, **facts})
    assert store.exists(RESULT)
    assert read_plan(store, "s") == plan
