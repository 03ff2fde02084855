"""A small real run, exported and read back: what is served is what was evaluated.

Real: the data, the training, the checkpoints, every file. Small: data and model.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from exported_run import run_document, trained
from prepare_serial import SerialTasks, make_config, make_log
from twotower.cli import main
from twotower.core.config import ExperimentConfig
from twotower.core.errors import InputError, RunError
from twotower.core.loading import with_overrides
from twotower.core.types import Float32, Ragged
from twotower.data.prepared import Prepared
from twotower.export.compare import compare
from twotower.export.contents import contents
from twotower.export.vectors import embed_catalogue
from twotower.export.write import export
from twotower.models.embeddings.bags import Bags
from twotower.models.sizes import sizes
from twotower.models.two_tower import TwoTower
from twotower.runtime.best import open_best
from twotower.serving import files
from twotower.serving.reader import Export
from twotower.serving.tables import formula_bytes
from twotower.training.evaluate import Evaluator

COMPRESSED = {
    "item": {
        "item_id": {"kind": "mgqe", "num_subspaces": 4},
        "label": {"kind": "scalar", "bits": 4},
        "brand": {"kind": "hashed", "share": 0.5},
        "tags": {"kind": "dpq_vq", "num_subspaces": 2, "num_centroids": 20},
        "words": {"kind": "low_rank", "rank": 3},
    },
    "query": {
        "query_id": {"kind": "dpq_sx", "num_subspaces": 2, "num_centroids": 16},
        "segment": {"kind": "scalar", "bits": 8},
    },
}
VARIANTS: dict[str, dict[str, Any]] = {
    "mean history, shared tables": {},
    "attention, tables of their own": {"history": "attention", "shared_tables": False},
    "every compressed kind": {"embeddings": COMPRESSED},
    "gmf over embeddings, two blocks of two heads": {
        "towers": "identity",
        "scorer": "gmf",
        "history": "attention",
        "history_blocks": 2,
        "history_heads": 2,
        "history_dropout": 0.2,
    },
    "neumf over compressed embeddings": {
        "towers": "identity",
        "scorer": "neumf",
        "scorer_hidden": [6, 4],
        "embeddings": COMPRESSED,
    },
    "neumf over MLPs": {"scorer": "neumf", "scorer_hidden": [5]},
}


class Made(NamedTuple):
    """A run, its export, and the model that was evaluated."""

    config: ExperimentConfig
    run: Path
    prepared: Prepared
    model: TwoTower
    export: Export
    path: Path


@pytest.fixture(scope="module", params=VARIANTS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    document = run_document(tmp_path_factory.mktemp("export"))
    document["model"] |= VARIANTS[request.param]
    if document["model"].get("towers") == "identity":
        del document["data"]["features"]["item"]["price"]  # towers of one width
    if document["model"].get("scorer"):
        document["loss"] = {"temperature": 1.0}
    config, run = trained(document)
    path = Path(export(run, names="category").path)
    opened = open_best(run)
    return Made(config, run, opened.prepared, opened.load_model(), Export.open(path), path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one export, to be copied and broken."""
    _, run = trained(run_document(tmp_path_factory.mktemp("plain")))
    return Path(export(run).path)


def raw(made: Made, name: str) -> list[dict[str, Any]]:
    source = getattr(made.config.data, name)
    return pq.read_table(source.path).to_pylist()


def close(found: Float32, expected: Float32) -> None:
    """Vectors need not have norm 1: rounding goes by their largest number."""
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max(initial=1)


def test_lookup_is_bitwise_the_evaluated_models(made: Made) -> None:
    read = made.model.store.reader()
    assert set(made.export.tables) == set(made.model.store.tables)
    for name, size in made.model.store.tables.items():
        ids = np.arange(size)
        ones = torch.ones(size)
        places = torch.arange(size, dtype=torch.int32)
        bags = Bags(places + made.model.store.offsets[name], ones, places, ones.to(torch.int32))
        expected = read(bags).numpy()
        served = made.model.store.served(name).ids
        found = made.export.lookup(name, ids if served is None else served)
        assert found.tobytes() == expected.tobytes(), name


def test_payload_on_disk_equals_the_formula(made: Made) -> None:
    def payload(name: str) -> int:
        stored = (made.path / name).read_bytes()
        return len(stored) - 8 - int.from_bytes(stored[:8], "little")

    expected = sum(
        formula_bytes(table.kind, table.settings, table.num_values, table.width)
        for table in made.export.tables.values()
    )
    assert payload(files.TABLES) == expected
    assert payload(files.TOWERS) == sizes(made.model).dense_bytes


def test_items_embed_from_raw_values_as_in_the_model(made: Made) -> None:
    by_id = {row["item_id"]: row for row in raw(made, "items")}
    expected = made.model.embed_items().numpy()
    assert list(made.export.item_ids) == made.prepared.item_ids().tolist()
    assert made.export.vectors.tobytes() == expected.tobytes()
    found = made.export.embed_items([by_id[item] for item in made.export.item_ids])
    close(found, expected)
    assert made.export.item_names[0] == by_id[made.export.item_ids[0]]["category"]


def test_queries_embed_from_raw_values_as_in_the_model(made: Made) -> None:
    asked = Evaluator(made.config, made.prepared).questions("test")
    names = made.prepared.query_ids()[asked.rows].tolist()
    expected = made.model.embed_queries(
        asked.rows, context=asked.context, history=asked.history
    ).numpy()
    close(made.export.embed_known(names), expected)

    by_id = {row["query_id"]: row for row in raw(made, "queries")}
    vocabulary = pq.read_table(made.prepared.store.local_path("vocab/context.country.parquet"))
    countries = [None, "of no country", *vocabulary.column("value").to_pylist()]
    assert asked.history is not None
    records = [
        by_id[name]
        | {"country": countries[country], "past": [made.export.item_ids[i] for i in past]}
        for name, country, past in zip(
            names, asked.context["country"], lists_of(asked.history), strict=True
        )
    ]
    close(made.export.embed_queries(records), expected)
    stranger = {"past": ["no such item", *records[0]["past"]], "query_id": "nobody"}
    assert np.isfinite(made.export.embed_queries([stranger, {"past": []}])).all()


def lists_of(ragged: Ragged) -> list[list[int]]:
    return [ragged.row(n).tolist() for n in range(ragged.num_rows)]


def test_recommendations_are_the_evaluated_lists(made: Made) -> None:
    evaluator = Evaluator(made.config, made.prepared)
    evaluated, asked = evaluator.evaluate(made.model, "test"), evaluator.questions("test")
    k = max(made.config.eval.k)
    for row, top in zip(asked.rows.tolist(), evaluated.top, strict=True):
        expected = [made.export.item_ids[item] for item in top.tolist() if item >= 0]
        found = made.export.recommend(str(made.prepared.query_ids()[row]), k)
        assert [one.item for one in found] == expected
    metrics = made.export.document["metrics"]["test"]
    assert metrics["recall@10"]["value"] == evaluated.summary["recall@10"]["value"]


def test_every_dense_weight_is_compared_with_torch(made: Made) -> None:
    run, rng = open_best(made.run), np.random.default_rng(0)
    written = contents(run, made.model, None)
    compare(Export(written.files), run, made.model, written.tables)
    tensors = files.parse_tensors(written.files, files.TOWERS)
    for name, tensor in tensors.items():
        if name.endswith("key.bias"):
            continue  # it is the same for all positions: a softmax doesn't see it
        change = rng.normal(size=tensor.shape).astype(np.float32)
        data = files.dump_tensors({**tensors, name: tensor + change})
        with pytest.raises(RunError, match=r"differ from torch's"):
            compare(Export(written.files | {files.TOWERS: data}), run, made.model, written.tables)


def test_extras_are_of_the_vectors_that_are_served(made: Made, tmp_path: Path) -> None:
    for name in ("faiss", "onnx", "onnxruntime"):
        pytest.importorskip(name, reason="the extras `ann` and `onnx` are not installed")
    by_pairs = made.config.model.scorer == "neumf"
    if by_pairs:
        with pytest.raises(InputError, match=r"--index: model\.scorer is neumf"):
            export(made.run, tmp_path / "out", index="flat")
        assert not (tmp_path / "out").exists()
    index = None if by_pairs else "flat"
    found = export(made.run, tmp_path / "out", names="category", onnx=True, index=index)
    assert set(found.onnx) == {"item_tower", "query_tower"}
    assert max(found.onnx.values()) < 1e-6
    assert (found.index is None) == by_pairs
    assert found.index is None or found.index.value == 1
    assert Export.open(tmp_path / "out").recommend("q1") == made.export.recommend("q1")


def test_filters_and_records_of_recommend(made: Made) -> None:
    asked = Evaluator(made.config, made.prepared).questions("test")
    row = int(np.argmax(asked.task.exclude.lengths()))
    query = str(made.prepared.query_ids()[asked.rows[row]])
    past = {made.export.item_ids[item] for item in asked.task.exclude.row(row).tolist()}
    every = made.export.recommend(query, 1000, filter_seen=False)
    assert {one.item for one in every} >= past
    left = made.export.recommend(query, 1000)
    assert [one for one in every if one.item not in past] == left
    first = left[0].item
    assert made.export.recommend(query, 1, seen=[first]) == left[1:2]
    record = {"segment": "s1", "past": [first]}
    assert len(made.export.recommend(record, 7)) == 7
    with pytest.raises(InputError, match="'nobody': not in the training data"):
        made.export.recommend("nobody")
    with pytest.raises(InputError, match="k 0"):
        made.export.recommend(query, 0)
    with pytest.raises(InputError, match=r"table 'item\.nothing': there is none"):
        made.export.lookup("item.nothing", np.array([0]))
    with pytest.raises(InputError, match=r"ids must be in \[0"):
        made.export.lookup("item.label", np.array([-1]))


def test_a_catalogue_embeds_alike_by_any_tasks(made: Made, tmp_path: Path) -> None:
    table = pq.read_table(made.config.data.items.path)
    source = tmp_path / "items.parquet"
    pq.write_table(table, source, row_group_size=50)
    for seed in (0, 1):
        found = embed_catalogue(made.path, str(source), tmp_path / f"{seed}", SerialTasks(seed))
        assert found["rows"] == table.num_rows
    first, second = ((tmp_path / f"{n}" / "manifest.json").read_bytes() for n in (0, 1))
    assert first == second
    stored = pq.read_table(tmp_path / "0" / "part-00000.parquet")
    assert stored.column("item_id").to_pylist() == table.column("item_id").to_pylist()
    vectors = np.array(stored.column("vector").to_pylist(), dtype=np.float32)
    expected = made.export.embed_items(table.to_pylist())
    close(vectors, expected)
    with pytest.raises(InputError, match="holds the catalogue"):
        embed_catalogue(made.path, str(source), tmp_path, SerialTasks())


def test_a_reader_needs_neither_torch_nor_ray_nor_arrow(plain: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(sys.argv[2:]));"
        "from twotower.serving.reader import Export; export = Export.open(sys.argv[1]);"
        "print(export.recommend('q1', 1)[0].item, export.embed_items([{'brand': 'b1'}]).shape)"
    )
    blocked = ("torch", "ray", "pyarrow", "pandas", "polars", "pydantic", "onnx", "faiss")
    done = subprocess.run(
        [sys.executable, "-c", code, str(plain), *blocked],
        cwd=Path(__file__).parents[2] / "platform",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{Export.open(plain).recommend('q1', 1)[0].item} (1, 8)\n"


def test_queries_that_are_items_never_get_themselves(tmp_path: Path) -> None:
    make_log(tmp_path, queries_are_items=True)
    config = make_config(tmp_path, queries="items")
    config, run = trained(with_overrides(config, {"train.num_epochs": 1}))
    opened = open_best(run)
    found = Export.open(export(run).path)
    evaluator = Evaluator(config, opened.prepared)
    top, asked = evaluator.evaluate(opened.load_model(), "test").top, evaluator.questions("test")
    for row, items in zip(asked.rows.tolist(), top, strict=True):
        query = str(opened.prepared.query_ids()[row])
        listed = [one.item for one in found.recommend(query, config.eval.k[-1])]
        assert listed == [found.item_ids[item] for item in items.tolist() if item >= 0]
        assert query not in listed


def test_the_command_line_exports_and_recommends(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["twotower", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        shown = capsys.readouterr()
        return code if isinstance(code, int) else 0, shown.out, shown.err

    out = str(tmp_path / "out")
    code, shown, _ = run("export", str(plain.parent), "-o", out, "--names", "brand")
    assert code == 0
    assert "item.item_id" in shown
    assert shown.splitlines()[-1] == out
    expected = Export.open(out).recommend("q1", 3)
    code, shown, _ = run("recommend", out, "--query", "q1", "-k", "3", "--json")
    assert json.loads(shown) == [
        {"item": one.item, "name": one.name, "score": one.score} for one in expected
    ]
    code, shown, _ = run("recommend", out, "--query", "q1", "-k", "3")
    assert expected[0].item in shown
    assert expected[0].name in shown
    code, shown, _ = run("recommend", out, "--record", '{"segment": "s1"}', "--json")
    assert len(json.loads(shown)) == 10
    for arguments in (["--query", "nobody"], ["--record", "[]"], ["--record", "{"], []):
        code, _, problem = run("recommend", out, *arguments)
        assert code == 2
        assert problem.count("\n") == 1
