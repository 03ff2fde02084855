import sys
from pathlib import Path

import numpy as np
import pytest

from twotower.core.errors import InputError
from twotower.core.types import Float32
from twotower.export.ann import Kind, build_index, check_kind, check_scorer


def unit(seed: int, rows: int, width: int = 8) -> Float32:
    vectors = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(("kind", "least"), [("flat", 1.0), ("hnsw", 0.9), ("ivf_pq", 0.3)])
@pytest.mark.parametrize("scale", [1, 1e-4, 1e4])
def test_recall_is_that_of_the_stored_index(
    kind: Kind, least: float, scale: float, tmp_path: Path
) -> None:
    """Of vectors of norm 1, or any: what float32 can't tell apart grows with them."""
    faiss = pytest.importorskip("faiss", reason="the extra `ann` is not installed")
    items, queries = unit(0, 2000) * np.float32(scale), unit(1, 40) * np.float32(scale)
    data, found = build_index(kind, items, queries, 10)
    assert len(data) == found.bytes
    (tmp_path / "index.faiss").write_bytes(data)
    index = faiss.read_index(str(tmp_path / "index.faiss"))
    _, places = index.search(queries, 10)
    exact = np.argsort(-(queries @ items.T), axis=1)[:, :10]
    shares = [
        len(set(a) & set(b)) / 10 for a, b in zip(places.tolist(), exact.tolist(), strict=True)
    ]
    assert found.value == pytest.approx(float(np.mean(shares)))
    assert least <= found.value <= 1
    if kind == "ivf_pq":
        assert found.bytes < items.nbytes / 2


def test_too_few_items_and_unknown_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="must be one of flat, ivf_pq, hnsw"):
        check_kind("tree")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install 'twotower\[ann\]'"):
        check_kind("flat")


def test_scores_that_are_no_dot_products_have_no_index() -> None:
    check_scorer("cosine")
    check_scorer("gmf")
    with pytest.raises(InputError, match=r"^--index: model\.scorer is neumf"):
        check_scorer("neumf")


def test_ivf_pq_says_how_many_items_it_takes() -> None:
    pytest.importorskip("faiss", reason="the extra `ann` is not installed")
    with pytest.raises(InputError, match="60 items are too few"):
        build_index("ivf_pq", unit(0, 60), unit(1, 4), 10)
