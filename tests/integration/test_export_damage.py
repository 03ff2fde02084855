"""Exports that are cut, changed, forged or in the way: refused in one line, or replaced whole."""

import json
import os
import pickle
import random
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exported_run import run_document, trained
from twotower.core.errors import DataError, InputError
from twotower.core.storage import describe
from twotower.data.prepared import Prepared
from twotower.export.write import export
from twotower.serving import files
from twotower.serving.packing import pack, unpack
from twotower.serving.reader import Export


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one export, to be copied and broken."""
    _, run = trained(run_document(tmp_path_factory.mktemp("plain")))
    return Path(export(run).path)


def damaged(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        Export.open(path)
    assert "\n" not in str(caught.value)
    assert "twotower export RUN" in str(caught.value)
    return str(caught.value)


def test_an_export_is_replaced_and_nothing_else(plain: Path, tmp_path: Path) -> None:
    run, copy = plain.parent, tmp_path / "export"
    shutil.copytree(plain, copy)
    (copy / "item_tower.onnx").write_bytes(b"of an export that was interrupted")
    export(run, copy)
    assert {path.name for path in copy.iterdir()} == {*files.REQUIRED, "manifest.json", ".lease"}
    assert (copy / files.TABLES).read_bytes() == (plain / files.TABLES).read_bytes()
    (copy / "manifest.json").unlink()
    (copy / files.TABLES).unlink()
    damaged(copy)
    export(run, copy)
    assert Export.open(copy).document == Export.open(plain).document
    with pytest.raises(InputError, match="holds a run"):
        export(run, run)
    prepared = Prepared.open(json.loads((run / "record.json").read_text())["prepared"])
    with pytest.raises(InputError, match="holds something else"):
        export(run, prepared.store.local_path())
    with pytest.raises(InputError, match=r"no column 'titel' \(--names\)"):
        export(run, copy, names="titel")
    with pytest.raises(InputError, match="holds no run"):
        export(tmp_path / "nothing")


@pytest.mark.parametrize("name", files.REQUIRED)
def test_a_cut_flipped_or_lost_file_is_refused(plain: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "export"
    shutil.copytree(plain, copy)
    whole, rng = (plain / name).read_bytes(), random.Random(name)
    for length in (0, len(whole) // 2, len(whole) - 1):
        (copy / name).write_bytes(whole[:length])
        assert f"{name}: damaged (has {length} bytes, not {len(whole)}" in damaged(copy)
    for at in [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(5))]:
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        (copy / name).write_bytes(changed)
        assert f"{name}: damaged (has changed" in damaged(copy)
    (copy / name).unlink()
    assert f"{name}: can't be read" in damaged(copy)


def test_no_flip_in_the_manifest_changes_what_is_read(plain: Path, tmp_path: Path) -> None:
    copy = tmp_path / "export"
    shutil.copytree(plain, copy)
    whole = (plain / "manifest.json").read_bytes()
    expected = files.read_files(plain)
    refused = 0
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 7)
        (copy / "manifest.json").write_bytes(changed)
        try:
            assert files.read_files(copy) == expected
        except DataError:
            refused += 1
    assert refused > 0.8 * len(whole), "the rest is space between tokens"
    for length in range(0, len(whole) - 2, 7):
        (copy / "manifest.json").write_bytes(whole[:length])
        damaged(copy)
    (copy / "manifest.json").unlink()
    assert "holds no export" in damaged(copy)
    (copy / "manifest.json").write_text(json.dumps({"layout": 99}))
    assert "layout 99" in damaged(copy)
    (copy / "manifest.json").write_text(json.dumps(json.loads(whole) | {"layout": 1}))
    assert "is of layout 1, this version reads layout 2; export the run again" in damaged(copy)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", files.REQUIRED)
def test_a_pickle_is_never_loaded(plain: Path, tmp_path: Path, name: str) -> None:
    """Even one that the manifest vouches for."""
    copy, sprung = tmp_path / "export", tmp_path / "sprung"
    shutil.copytree(plain, copy)
    data = pickle.dumps(Trap(sprung))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"] |= {name: describe(data), "model.pkl": describe(data)}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / name).write_bytes(data)
    (copy / "model.pkl").write_bytes(data)
    damaged(copy)
    assert not sprung.exists()
    pickle.loads(data)
    assert sprung.exists(), "the trap works"


def test_a_file_of_another_export_does_not_fit(plain: Path, tmp_path: Path) -> None:
    copy = tmp_path / "export"
    shutil.copytree(plain, copy)
    data = files.dump_tensors({"vectors": np.zeros((2, 2), np.float32)})
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][files.ITEMS] = describe(data)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    (copy / files.ITEMS).write_bytes(data)
    assert "don't belong together" in damaged(copy)


def forged(plain: Path, copy: Path, name: str, data: bytes) -> Path:
    """A copy with another file, which the manifest vouches for."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(plain, copy)
    (copy / name).write_bytes(data)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = describe(data)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


EMPTY = describe(b"")


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(layout=True),
        lambda m: m.update(layout=1.0),
        lambda m: m.update(files=[1]),
        lambda m: m["files"].update({"model.json": None}),
        lambda m: m["files"].update({"model.json": EMPTY | {"size": 1e999}}),
        lambda m: m["files"].update({"model.json": EMPTY | {"size": "12"}}),
        lambda m: m["files"].update({"model.json": EMPTY | {"sha256": "x"}}),
        *(
            lambda m, name=name: m["files"].update({name: EMPTY})
            for name in ("a\0b", "\ud800", "", ".", "..", "../x", "/etc/passwd", "x" * 300, "a\\b")
        ),
    ],
)
def test_a_manifest_of_wrong_types_is_refused(plain: Path, tmp_path: Path, change: Any) -> None:
    copy = tmp_path / "export"
    shutil.copytree(plain, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    damaged(copy)
    (copy / "manifest.json").write_text("[" * 200_000)
    damaged(copy)


CHANGES: dict[str, Any] = {
    "tables": lambda d: d.update(tables={}),
    "layers": lambda d: d.update(layers=1),
    "layers as text": lambda d: d.update(layers="2"),
    "no layers": lambda d: d.update(layers=0),
    "no scorer": lambda d: d.update(scorer=None),
    "another scorer": lambda d: d["scorer"].update(kind="gmf"),
    "a network over pairs": lambda d: d["scorer"].update(kind="neumf", layers=1),
    "unknown scorer": lambda d: d["scorer"].update(kind="x"),
    "layers of the scorer": lambda d: d["scorer"].update(layers=-1),
    "blocks": lambda d: d["history"].update(blocks=0),
    "heads": lambda d: d["history"].update(heads="2"),
    "no history": lambda d: d.update(history=None),
    "history": lambda d: d["history"].update(max_values="x"),
    "encoder": lambda d: d["history"].update(encoder="attention"),
    "kind": lambda d: d["features"]["item"][0].update(kind="x"),
    "deviation": lambda d: d["features"]["item"][-1].update(deviation=0),
    "huge": lambda d: d["features"]["item"][-1].update(mean=10**400),
    "max_values": lambda d: d["features"]["item"][3].update(max_values="x"),
    "key": lambda d: d.pop("step"),
    "buckets": lambda d: d["vocabularies"].update({"item.brand": 10**6}),
    "text buckets": lambda d: d["vocabularies"].update({"item.brand": "5"}),
    "width": lambda d: d["tables"]["item.brand"].update(width="8"),
    "names": lambda d: d.update(names=True),
    "name": lambda d: d["features"]["item"][0].update(column="\ud800"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_document_of_wrong_values_is_refused(plain: Path, tmp_path: Path, name: str) -> None:
    document = json.loads((plain / files.MODEL).read_text())
    CHANGES[name](document)
    damaged(forged(plain, tmp_path / "export", files.MODEL, json.dumps(document).encode()))


@pytest.mark.parametrize("data", [b"[1]", b"null", b"[" * 200_000, b"{", b"\xff"])
def test_a_document_that_is_none_is_refused(plain: Path, tmp_path: Path, data: bytes) -> None:
    damaged(forged(plain, tmp_path / "export", files.MODEL, data))


@pytest.mark.parametrize(
    ("name", "key", "change"),
    [
        (files.ITEMS, "vectors", lambda a: a[:-1]),
        (files.ITEMS, "vectors", lambda a: a[:, :-1]),
        (files.ITEMS, "vectors", lambda a: a.astype(np.float64)),
        (files.ITEMS, "tie_ranks", lambda a: a[:-1]),
        (files.ITEMS, "ids.offsets", lambda a: a + 1),
        (files.ITEMS, "history", lambda a: a + 10_000),
        (files.QUERIES, "seen", lambda a: a + 10_000),
        (files.QUERIES, "history.offsets", lambda a: a[:-1]),
        (files.QUERIES, "own_item", lambda a: a.astype(np.float32)),
        (files.QUERIES, "f.segment", lambda a: a - 10),
        (files.VOCABULARIES, "item.brand.offsets", lambda a: a[::-1]),
        (files.TOWERS, "query_tower.0.weight", lambda a: a[:, :-1]),
        (files.TOWERS, "item_tower.0.bias", lambda a: a * np.nan),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    plain: Path, tmp_path: Path, name: str, key: str, change: Any
) -> None:
    tensors = dict(files.parse_tensors({name: (plain / name).read_bytes()}, name))
    tensors[key] = change(tensors[key])
    damaged(forged(plain, tmp_path / "export", name, files.dump_tensors(tensors)))


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with a table of one tier and 8 centroids, and one of two tiers."""
    document = run_document(tmp_path_factory.mktemp("coded"))
    document["train"]["num_epochs"] = 1
    tiers = [{"share": 0.3, "num_centroids": 16}, {"share": 0.7, "num_centroids": 8}]
    document["model"]["embeddings"] = {
        "item": {
            "tags": {"kind": "dpq_vq", "num_subspaces": 2, "num_centroids": 8},
            "item_id": {"kind": "mgqe", "num_subspaces": 2, "tiers": tiers},
        }
    }
    return Path(export(trained(document)[1]).path)


@pytest.mark.parametrize(("table", "tier"), [("item.tags", 0), ("item.item_id", 1)])
def test_codes_beyond_the_centroids_of_their_tier_are_refused(
    coded: Path, tmp_path: Path, table: str, tier: int
) -> None:
    """5 centroids take as many bits as 8: every shape still fits."""
    copy = tmp_path / "export"
    document = json.loads((coded / files.MODEL).read_text())
    limits = document["tables"][table]["settings"]["tiers"]
    limits[tier]["centroids"] = [5, 5]
    tensors = dict(files.parse_tensors({"": (coded / files.TABLES).read_bytes()}, ""))
    most = max(max(one["centroids"]) for one in limits)
    centroids = np.ascontiguousarray(tensors[f"{table}/centroids"][:, :most])
    tensors[f"{table}/centroids"] = centroids
    codes = unpack(tensors[f"{table}/codes.{tier}"], np.arange(limits[tier]["rows"]), [3, 3])
    assert codes.max() >= 5
    forged(coded, tmp_path / "tables", files.TABLES, files.dump_tensors(tensors))
    forged(tmp_path / "tables", copy, files.MODEL, json.dumps(document).encode())
    column, code = next((d, k) for d, k in enumerate(codes.max(axis=0).tolist()) if k >= 5)
    told = f"tables.safetensors: '{table}/codes.{tier}' names centroid {code} of column {column}"
    assert f"{told}, which has 5)" in damaged(copy)
    tensors[f"{table}/codes.{tier}"] = pack(np.minimum(codes, 4), [3, 3])
    forged(tmp_path / "tables", copy, files.TABLES, files.dump_tensors(tensors))
    forged(copy, tmp_path / "sound", files.MODEL, json.dumps(document).encode())
    Export.open(tmp_path / "sound")


def test_an_export_is_opened_in_its_own_size(plain: Path, tmp_path: Path) -> None:
    tensors = dict(files.parse_tensors({"": (plain / files.TABLES).read_bytes()}, ""))
    tensors["more/rows"] = np.zeros(4_000_000, np.float32)
    copy = forged(plain, tmp_path / "export", files.TABLES, files.dump_tensors(tensors))
    size = sum(path.stat().st_size for path in copy.iterdir())
    tracemalloc.start()
    opened = Export.open(copy)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert opened.recommend("q1", 1)
    assert held < 1.1 * size
    assert peak < 1.1 * size


def test_questions_that_make_no_sense_are_refused(plain: Path) -> None:
    opened = Export.open(plain)
    item = opened.item_ids[0]
    asked: list[tuple[Any, dict[str, Any]]] = [
        (5, {}), (None, {}), (["q1"], {}), ("\ud800", {}), ("q1", {"k": 2.5}), ("q1", {"k": "2"}),
        ("q1", {"k": True}), ("q1", {"seen": [1]}), ("q1", {"seen": item}), ("q1", {"seen": None}),
        ({"segment": "\ud800"}, {}), ({"past": np.array(item)}, {}), ({"past": ["\ud800"]}, {}),
    ]  # fmt: skip
    for query, options in asked:
        with pytest.raises(InputError) as caught:
            opened.recommend(query, **options)
        assert "\n" not in str(caught.value)
        assert str(caught.value).isascii()
    for wrong in ([[1, 2]], ["a"], [1.5], [2**63], 5):
        with pytest.raises(InputError, match=r"item\.brand"):
            opened.lookup("item.brand", wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError):
        opened.embed_known([5])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="too far from the training data"):
        opened.embed_items([{"price": 1e42}])
    with pytest.raises(InputError, match="too far from the training data"):
        opened.embed_items([{"price": 1e39}])
    assert opened.recommend("q1", np.arange(3)[2]) == opened.recommend("q1", 2, seen=["\ud800"])
    listed = opened.recommend({"past": [item]}, 5)
    assert opened.recommend({"past": np.array([item], object)}, 5) == listed
    assert opened.recommend({"past": [None, item]}, 5) == listed
