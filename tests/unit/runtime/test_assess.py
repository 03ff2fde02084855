"""Evaluating again and comparing, from the files of runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from tiny_run import tiny_run
from twotower.core.config import ExperimentConfig
from twotower.core.errors import InputError
from twotower.core.lease import Lease
from twotower.core.loading import with_overrides
from twotower.data.prepared import Prepared
from twotower.runtime.assess import compare, evaluate, write_baselines
from twotower.runtime.reference import train_reference
from twotower.runtime.results import read_baselines, read_evaluation
from twotower.runtime.run_folder import RunFolder

EMBEDDINGS = {"item": {"item_id": {"kind": "scalar", "bits": 4}}}


def trained(config: ExperimentConfig, prepared: Prepared) -> RunFolder:
    folder = RunFolder(config)
    folder.begin(prepared, None)
    train_reference(config, prepared, store=folder.store)
    return folder


def test_evaluating_again_gives_the_same_documents(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    folder = trained(config, prepared)
    run = folder.store.local_path()
    before = {path.name: path.read_bytes() for path in (run / "evaluation").iterdir()}
    for part in ("validation", "test"):
        document = evaluate(run, part)
        assert document == json.loads(before[f"{part}.json"])
    after = {path.name: path.read_bytes() for path in (run / "evaluation").iterdir()}
    assert after == before


def test_a_run_says_what_its_model_is_served_with(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path, model__embeddings=EMBEDDINGS)
    folder = RunFolder(config)
    folder.begin(prepared, None)
    model = train_reference(config, prepared, store=folder.store).state.model
    document = folder.store.read_json("sizes.json")
    for name, values in model.store.tables.items():
        found, served = document["tables"][name], model.store.served(name).table
        assert (found["kind"], found["values"]) == (served.kind, values)
        assert found["bytes"] == served.payload_bytes()
        assert found["full_bytes"] == 4 * values * model.store.width
    assert {table["kind"] for table in document["tables"].values()} >= {"full", "scalar"}
    assert document["table_bytes"] == sum(t["bytes"] for t in document["tables"].values())
    place = folder.store.local_path() / "sizes.json"
    before = place.read_bytes()
    place.unlink()
    evaluate(folder.store.local_path())
    assert place.read_bytes() == before, "a run made before there was the file gets it"


def test_comparison_is_the_mean_of_differences_by_query(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    first = trained(config, prepared).store
    second = trained(with_overrides(config, {"seed": 1}), prepared).store
    found = compare([first.local_path(), second.local_path()])
    assert found.reference == first.local_path().name
    difference = found.runs[second.local_path().name]["recall@5"]
    a, b = (read_evaluation(store, "test").values["recall@5"] for store in (first, second))
    assert difference.mean == pytest.approx(np.nanmean(b - a))
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low <= np.nanmean(b - a) <= difference.high
    assert json.dumps(found.document())


def test_what_can_not_be_compared_is_refused(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    first = trained(config, prepared).store.local_path()
    other = with_overrides(config, {"eval.filter_seen": False})
    second = trained(other, prepared).store.local_path()
    with pytest.raises(InputError, match=r"can't be compared: protocol\.filter"):
        compare([first, second])
    with pytest.raises(InputError, match="two or more"):
        compare([first])
    with pytest.raises(InputError, match="given twice"):
        compare([first, first])
    with pytest.raises(InputError, match="holds no run"):
        compare([first, tmp_path / "nothing"])
    third = trained(with_overrides(config, {"seed": 2}), prepared).store.local_path()
    with pytest.raises(InputError, match="metric 'recall@7': "):
        compare([first, third], metrics=["recall@7"])


def test_a_run_in_use_or_without_checkpoint_is_not_evaluated(tmp_path: Path) -> None:
    config, prepared = tiny_run(tmp_path)
    folder = RunFolder(config)
    folder.begin(prepared, None)
    with pytest.raises(InputError, match="no best checkpoint yet"):
        evaluate(folder.store.local_path())
    train_reference(config, prepared, store=folder.store)
    with Lease(folder.store), pytest.raises(InputError, match="in use by"):
        evaluate(folder.store.local_path())


def test_baselines_are_made_once_for_all_runs_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, prepared = tiny_run(tmp_path)
    first, second = (RunFolder(with_overrides(config, {"seed": seed})).store for seed in (0, 1))
    write_baselines(config, prepared, first)
    found = read_baselines(first)
    assert set(found) == {"popularity", "content", "item_knn"}
    assert all("recall@5" in one.values for one in found.values())
    monkeypatch.setattr("twotower.runtime.assess.Evaluator", None)  # not asked again
    write_baselines(config, prepared, second)
    assert {n: m.document for n, m in read_baselines(second).items()} == {
        n: m.document for n, m in found.items()
    }
