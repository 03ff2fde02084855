"""Names of features become files, tables and arrays: two of them must never read alike."""

from typing import Any

import pytest
from pydantic import ValidationError

from twotower.core.data_config import Features


@pytest.mark.parametrize("name", ["label/x", "/", "tags.offsets", "a.bytes", "a.ids"])
@pytest.mark.parametrize("side", ["item", "query", "context"])
def test_names_that_read_like_anothers_arrays_are_refused(side: str, name: str) -> None:
    one: dict[str, Any] = {"kind": "categorical"}
    features = {"item": {"id": one}, "query": {"id": one}, "context": {}}
    Features.model_validate(features)
    features[side] = {**features[side], name: one}
    with pytest.raises(ValidationError) as caught:
        Features.model_validate(features)
    assert f"{side}.{name}: the name of a feature can't" in str(caught.value)
    assert f"set `column: {name}`" in str(caught.value)


def test_other_names_and_any_column_are_fine() -> None:
    one = {"kind": "multi", "column": "tags/all.ids"}
    names = ("label.x", "offsets", "ids", "user_ids", "a.b.c", "ünter", "a@b")
    Features.model_validate({"item": dict.fromkeys(names, one), "query": {"ids": one}})
