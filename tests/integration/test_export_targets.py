"""Where an export and vectors may be written: nothing that isn't ours is replaced or locked."""

import json
import pickle
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exported_run import run_document, trained
from prepare_serial import SerialTasks
from twotower.core.errors import InputError, RunError
from twotower.core.lease import Lease
from twotower.core.storage import Store
from twotower.export.compare import compare
from twotower.export.contents import contents
from twotower.export.vectors import embed_catalogue
from twotower.export.write import export
from twotower.runtime.best import open_best
from twotower.serving import files
from twotower.serving.reader import Export


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export inside its run."""
    document = run_document(tmp_path_factory.mktemp("plain"))
    document["model"]["embeddings"] = {"item": {"label": {"kind": "mgqe", "num_subspaces": 4}}}
    _, run = trained(document)
    return Path(export(run).path)


@pytest.fixture
def catalogue(plain: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    shutil.copy(plain.parents[2] / "data" / "items.parquet", folder / "part-00000.parquet")
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(plain: Path, catalogue: Path, output: Path, match: str) -> None:
    before = tree(output)
    with pytest.raises(InputError, match=match) as caught:
        embed_catalogue(plain, str(catalogue), output, SerialTasks())
    assert "\n" not in str(caught.value)
    assert tree(output) == before


def test_vectors_delete_only_what_their_manifest_lists(
    plain: Path, catalogue: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    refused(plain, catalogue, catalogue, "holds the catalogue")
    (tmp_path / "link").symlink_to(catalogue)
    refused(plain, tmp_path / "link", catalogue, "holds the catalogue")
    refused(plain, catalogue, tmp_path, "holds the catalogue")
    refused(plain, catalogue, plain, "not empty and holds no vectors of ours")

    shutil.copytree(catalogue, out)
    refused(plain, catalogue, out, "not empty and holds no vectors of ours")
    shutil.rmtree(out)

    first = embed_catalogue(plain, str(catalogue), out, SerialTasks())
    assert embed_catalogue(plain, str(catalogue), out, SerialTasks()) == first
    kept = (out / "part-00000.parquet").read_bytes()
    shutil.copy(catalogue / "part-00000.parquet", out)
    refused(plain, catalogue, out, r"part-00000\.parquet has changed")
    (out / "part-00000.parquet").write_bytes(kept)
    (out / "part-00001.parquet").write_bytes(kept)
    refused(plain, catalogue, out, r"part-00001\.parquet is not ours")
    (out / "part-00001.parquet").unlink()
    refused(plain, tmp_path / "nothing", out, "no such file or folder")
    manifest = json.loads((out / "manifest.json").read_text())
    for change in ({"rows": "9"}, {"more": 1}, {"files": 5}, {"files": {"../x": {}}}):
        (out / "manifest.json").write_text(json.dumps(manifest | change))
        refused(plain, catalogue, out, "holds no vectors of ours")
    (out / "manifest.json").write_text("[" * 100_000)
    refused(plain, catalogue, out, "holds no vectors of ours")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is no folder"):
        embed_catalogue(plain, str(catalogue), tmp_path / "file", SerialTasks())


class Watched(SerialTasks):
    """Keeps what the tasks were given."""

    base: Any = None

    def run(
        self, stage: str, kernel: Any, units: Any, base: Any = None, plan: Any = None
    ) -> Iterator[Any]:
        self.base = base
        return super().run(stage, kernel, units, base, plan)


def test_tasks_get_the_item_tower_only(plain: Path, catalogue: Path, tmp_path: Path) -> None:
    tasks = Watched()
    embed_catalogue(plain, str(catalogue), tmp_path / "out", tasks)
    given, opened = pickle.dumps(tasks.base), Export.open(plain)
    assert opened.tables["item.tags"].tensors["rows"].tobytes() in given
    assert opened.vectors.tobytes() not in given
    assert opened.tables["query.query_id"].tensors["rows"].tobytes() not in given


def test_vectors_cast_columns_as_preparing_does(tmp_path: Path) -> None:
    document = run_document(tmp_path)
    path = Path(document["data"]["items"]["path"])
    table = pq.read_table(path)
    start, rows = datetime(2020, 1, 1), table.num_rows
    times = pa.array([start + timedelta(days=n % 5) for n in range(rows)], pa.timestamp("us"))
    table = table.set_column(table.column_names.index("category"), "category", times)
    lists = pa.array([[n % 3, None, n % 7] for n in range(rows)], pa.large_list(pa.int16()))
    table = table.set_column(table.column_names.index("tags"), "tags", lists)
    brands = table.column("brand").combine_chunks().dictionary_encode()
    table = table.set_column(table.column_names.index("brand"), "brand", brands)
    pq.write_table(table, path)
    _, run = trained(document)
    found = embed_catalogue(export(run).path, str(path), tmp_path / "out", SerialTasks())
    assert found["rows"] == rows
    stored = pq.read_table(tmp_path / "out" / "part-00000.parquet")
    vectors = np.array(stored.column("vector").to_pylist(), np.float32)
    opened = open_best(run)
    model, ids = opened.load_model(), opened.prepared.item_ids().tolist()
    places = [ids.index(one) for one in stored.column("item_id").to_pylist()]
    assert np.abs(vectors - model.embed_items().numpy()[places]).max() < 1e-6

    wrong = table.set_column(
        table.column_names.index("category"), "category", pa.array([1.5] * rows)
    )
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    with pytest.raises(InputError, match=r"wrong\.parquet: column 'category' is float"):
        embed_catalogue(
            run / "export", str(tmp_path / "wrong.parquet"), tmp_path / "no", SerialTasks()
        )
    assert not (tmp_path / "no").exists()
    far = table.set_column(
        table.column_names.index("price"), "price", pa.array([1e42] + [1.0] * (rows - 1))
    )
    pq.write_table(far, tmp_path / "far.parquet")
    with pytest.raises(InputError, match=r"far\.parquet: column 'price': 1e\+42 is too far"):
        embed_catalogue(
            run / "export", str(tmp_path / "far.parquet"), tmp_path / "far", SerialTasks()
        )


@pytest.mark.parametrize(
    "change",
    [
        {"files": 5}, {"files": ["../x"]}, {"files": {"../x": {}}}, {"files": {}}, {"layout": True},
        {"layout": 99}, {"layout": 0},
    ],
)  # fmt: skip
def test_an_export_replaces_no_manifest_but_its_own(
    plain: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(plain, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | change))
    untouched(plain.parent, copy, "manifest.json")


def test_an_export_of_an_earlier_layout_is_replaced(plain: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(plain, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"layout": 1}))
    export(plain.parent, copy)
    assert Export.open(copy).document == Export.open(plain).document


def untouched(run: Path, target: Path, match: str) -> None:
    before = tree(target)
    with pytest.raises(InputError, match=match) as caught:
        export(run, target, names="no such column: refused before any work")
    assert "\n" not in str(caught.value)
    assert "another with -o" in str(caught.value)
    assert tree(target) == before


def test_an_export_replaces_no_folder_of_another(plain: Path, tmp_path: Path) -> None:
    run = plain.parent
    for name in ("notes.txt", "part-00000.parquet"):
        copy = tmp_path / name
        shutil.copytree(plain, copy)
        (copy / name).write_text("mine")
        untouched(run, copy, f"holds something else \\('{name}'\\)")
    copy = tmp_path / "folder"
    shutil.copytree(plain, copy)
    (copy / "index.faiss").mkdir()
    (copy / "index.faiss" / "mine").write_text("mine")
    untouched(run, copy, r"holds something else \(the folder 'index\.faiss'\)")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is no folder"):
        export(run, tmp_path / "file")


def test_a_run_is_only_read_when_it_is_exported_elsewhere(plain: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain.parent, run, ignore=shutil.ignore_patterns(".lease", "export"))
    before = tree(run)
    export(run, tmp_path / "out")
    assert tree(run) == before
    with Lease(Store(run)):
        export(run, tmp_path / "another")
        with pytest.raises(InputError, match="in use"):
            export(run)
    with Lease(Store(tmp_path / "out")), pytest.raises(InputError, match="in use"):
        export(run, tmp_path / "out")


def test_what_differs_from_torch_is_not_written(plain: Path) -> None:
    run = open_best(plain.parent)
    model = run.load_model()
    made = contents(run, model, None)
    compare(Export(made.files), run, model, made.tables)

    def changed(name: str, key: str, match: str) -> None:
        tensors = dict(files.parse_tensors(made.files, name))
        tensors[key] = np.ascontiguousarray(tensors[key][::-1])
        forged = Export(made.files | {name: files.dump_tensors(tensors)})
        with pytest.raises(RunError, match=match):
            compare(forged, run, model, made.tables)

    changed(files.TABLES, "item.brand/rows", "vectors of items differ")
    changed(files.TABLES, "query.segment/rows", "vectors of queries differ")
    changed(files.TOWERS, "item_tower.1.bias", "vectors of items differ")
    changed(files.QUERIES, "f.segment", "vectors of queries differ")
    changed(files.VOCABULARIES, "item.tags.bytes", r"values of item\.tags lead to rows of others")


def test_an_export_is_read_through_a_uri(plain: Path, tmp_path: Path) -> None:
    opened = Export.open(f"file://{plain}")
    assert opened.recommend("q1", 3) == Export.open(plain).recommend("q1", 3)
    with pytest.raises(InputError, match="holds no export"):
        Export.open(f"file://{tmp_path}/nothing")
    with pytest.raises(InputError, match="can't be opened"):
        Export.open("nosuchstorage://bucket/export")
