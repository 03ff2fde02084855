"""The measurement of exact evaluation: what it finds is right, and FAISS is asked as it should."""

import sys
from pathlib import Path

import numpy as np
import pytest

from twotower.bench.topk import K, measure, read_vectors, search, write_vectors, wrong_places
from twotower.bench.topk_memory import peak
from twotower.core.errors import InputError

BRUTE_FORCE = """
import numpy as np
__version__ = "brute force"
def omp_set_num_threads(number): pass
class IndexFlatIP:
    def __init__(self, width): pass
    def add(self, item): self.item = item
    def search(self, query, k):
        scores = query @ self.item.T
        ids = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(scores, ids, 1), ids
"""


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("w3") / "w3.npz"
    write_vectors(path, queries=60, items=3000)
    return path


@pytest.fixture
def peers(tmp_path: Path) -> Path:
    """An environment whose FAISS is ten lines of NumPy."""
    python = tmp_path / "etl" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "faiss.py").write_text(BRUTE_FORCE)
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path


def test_vectors_are_seeded_clustered_and_of_length_1(vectors: Path, tmp_path: Path) -> None:
    write_vectors(tmp_path / "again.npz", queries=60, items=3000)
    query, item = read_vectors(vectors, 50)
    assert query.shape == (50, 128)
    assert item.shape == (3000, 128)
    assert np.array_equal(read_vectors(tmp_path / "again.npz", 50)[1], item)
    assert np.allclose(np.linalg.norm(item, axis=1), 1, atol=1e-6)
    assert (query @ item.T).max(axis=1).mean() > 0.4  # of independent vectors about 0.3


def test_every_engine_is_measured_and_right(vectors: Path, peers: Path) -> None:
    found = measure(vectors, 50, threads=1, repeats=2, peers=peers)
    assert (found["queries"], found["items"], found["k"], found["threads"]) == (50, 3000, K, 1)
    assert set(found["engines"]) == {"float32", "bfloat16", "faiss_flat"}
    for engine in found["engines"].values():
        assert engine["wrong_places"] == 0
        assert engine["queries_per_s_best"] >= engine["queries_per_s"] > 0
        assert len(engine["others_share"]) == 2
    assert found["times_faiss"].keys() == {"float32", "bfloat16"}
    assert "faiss_flat" not in measure(vectors, 50, threads=1, repeats=1)["engines"]


def test_wrong_lists_are_counted(vectors: Path) -> None:
    query, item = read_vectors(vectors, 30)
    ids = search(query, item, ()).items
    assert wrong_places(query, item, ids) == 0
    shifted = np.roll(ids, 1, axis=1)
    assert wrong_places(query, item, shifted) > 29 * K


def test_an_environment_without_faiss_is_named(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"etl/bin/python is missing: .*faiss_flat\.txt"):
        measure(vectors, 5, threads=1, repeats=1, peers=tmp_path)
    python = tmp_path / "etl" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    with pytest.raises(InputError, match="ended early"):
        measure(vectors, 5, threads=1, repeats=1, peers=tmp_path)


def test_memory_is_measured_in_a_process_of_its_own(vectors: Path) -> None:
    found = peak(vectors, 60, 1, "float32", 16)
    assert found["tile_mb"] == 16
    assert 0 <= found["added_mb"] < 100
