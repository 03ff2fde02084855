"""Vectors of a catalogue on a real Ray cluster: the same bytes as without Ray."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from exported_run import run_document, trained
from prepare_serial import SerialTasks
from twotower.cli import main
from twotower.export import vectors
from twotower.export.write import export


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_same_bytes_as_without_ray(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A catalogue of three files, one of which is cut into several parts."""
    document = run_document(tmp_path)
    document["train"]["num_epochs"] = 1
    codes = {"kind": "dpq_vq", "num_subspaces": 2, "num_centroids": 5}
    document["model"]["embeddings"] = {"item": {"tags": codes}}
    made = export(trained(document)[1]).path

    table = pq.read_table(document["data"]["items"]["path"])
    catalogue, first = tmp_path / "catalogue", 0
    catalogue.mkdir()
    for number, rows in enumerate((20, 70, table.num_rows - 90)):
        part = table.slice(first, rows)
        pq.write_table(part, catalogue / f"part-{number}.parquet", row_group_size=25)
        first += rows
    # The driver cuts parts; tasks don't look at the size.
    monkeypatch.setattr(vectors, "_PART_ROWS", 30)
    alone = vectors.embed_catalogue(made, str(catalogue), tmp_path / "alone", SerialTasks())
    assert len(alone["files"]) == 4

    given = ["vectors", made, str(catalogue), "-o", str(tmp_path / "ours"), "--json"]
    monkeypatch.setattr(sys, "argv", ["twotower", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out) == alone
    assert alone["rows"] == table.num_rows
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert names == {*alone["files"], "manifest.json"}
    assert {path.name for path in (tmp_path / "ours").iterdir()} == names
    for name in names:
        ours, theirs = ((tmp_path / side / name).read_bytes() for side in ("ours", "alone"))
        assert ours == theirs, name
