"""What a job is told to do: its files are sent, and what it writes outlives its own folder."""

from pathlib import Path
from typing import Any

import pytest

from job_checkout import STUDY, write_checkout
from small_experiment import write_yaml
from tiny_config import tiny_config
from twotower.core.errors import ConfigError, InputError
from twotower.runtime.entry import ACTIONS, parse
from twotower.runtime.job_command import checked_command
from twotower.study.command import read_study

SPACE = ["--space", "configs/space.yaml"]
STORED = ["--set=storage.runs=HERE/runs", "--set=storage.prepared=HERE/prepared"]
RELATIVE: dict[str, tuple[list[str], list[str], str]] = {
    "prepare": (["configs/tiny.yaml"], ["configs/tiny.yaml", *STORED], "tiny"),
    "train": (
        ["configs/tiny.yaml", "--set", "seed=1", "--set", "ssl.weight=0.2"],
        ["configs/tiny.yaml", "--set=seed=1", "--set=ssl.weight=0.2", *STORED],
        "tiny",
    ),
    "evaluate": (
        ["--part", "validation", "validation"],
        ["HERE/validation", "--part=validation"],
        "validation",
    ),
    "export": (
        ["runs/x", "--names", "runs/x", "-o", "out/exp", "--onnx", "--index", "flat"],
        ["HERE/runs/x", "--output=HERE/out/exp", "--names=runs/x", "--onnx", "--index=flat"],
        "x",
    ),
    "search": (
        [*SPACE, "--trials", "16", "--no-prune", "configs/tiny.yaml", "--max-concurrent", "2"],
        [
            "configs/tiny.yaml",
            "--space=configs/space.yaml",
            "--max-concurrent=2",
            "--no-prune",
            *STORED,
        ],
        "tiny",
    ),
    "resume": (["runs/s", "--trials", "3"], ["HERE/runs/s", "--trials=3"], "s"),
    "report": (["runs/s"], ["HERE/runs/s"], "s"),
    "study": (
        ["configs/study.yaml", "--only", "tiny"],
        ["configs/study.yaml", "--only=tiny", "--home=HERE"],
        "little",
    ),
    "benchmark": (["--repeats", "2", "bench"], ["HERE/bench", "--repeats=2"], "bench"),
}
"""Arguments with relative places, what becomes of them, and the name of what the job works on."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return write_checkout(tmp_path)


def checked(
    checkout: Path, action: str, *arguments: str, sees: bool = True
) -> tuple[list[str], str]:
    here = checkout if sees else None
    return checked_command(action, arguments, checkout, here, read_study)


def test_every_action_is_tried() -> None:
    assert RELATIVE.keys() == ACTIONS.keys()


@pytest.mark.parametrize("action", RELATIVE)
def test_what_a_job_writes_outlives_its_own_folder(action: str, checkout: Path) -> None:
    given, expected, name = RELATIVE[action]
    words = [word.replace("HERE", str(checkout)) for word in expected]
    command, job = checked(checkout, action, *given)
    assert command == ["python", ACTIONS[action].file, *words]
    assert job.startswith(f"{action}-{name}-")
    assert checked(checkout, action, *command[2:]) == (command, job), "the same once more"
    assert checked(checkout, action, *command[2:], sees=False)[0] == command, "nothing relative"
    asked, sent = vars(parse(action, given)), vars(parse(action, words))
    for key in {*asked} - {"run", "search", "folder", "output", "home", "set"}:
        assert sent[key] == asked[key]


@pytest.mark.parametrize("action", RELATIVE)
def test_a_cluster_elsewhere_is_given_no_relative_place(action: str, checkout: Path) -> None:
    with pytest.raises(
        ConfigError, match=r": is relative, so it would lie in the job's own folder"
    ):
        checked(checkout, action, *RELATIVE[action][0], sees=False)


@pytest.mark.parametrize(
    ("action", "arguments", "told"),
    [
        ("train", ["configs/tiny.yaml"], "storage.runs: 'runs': is relative"),
        ("export", ["/s/x", "-o", "exp"], "output: 'exp': is relative"),
        ("benchmark", ["bench"], "folder: 'bench': is relative"),
        ("study", ["configs/study.yaml"], "configs/study.yaml: folder: 'docs/little': is relative"),
        ("study", ["configs/study.yaml", "--home", "."], "home: '.': is relative"),
    ],
)
def test_what_is_relative_is_named(
    action: str, arguments: list[str], told: str, checkout: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        checked(checkout, action, *arguments, sees=False)
    assert str(error.value).startswith(told)


def test_shared_places_stay_as_they_are(checkout: Path) -> None:
    shared = ["--set=storage.runs=/s/runs", "--set=storage.prepared=s3://b/p"]
    for sees in (True, False):
        command, _ = checked(checkout, "train", "configs/tiny.yaml", *shared, sees=sees)
        assert command[3:] == shared


def study(checkout: Path, **changes: Any) -> None:
    write_yaml(checkout / "configs/study.yaml", STUDY | changes)


def test_a_study_on_shared_storage_needs_no_home(checkout: Path) -> None:
    stored = {"storage.runs": "/s/runs", "storage.prepared": "/s/prepared"}
    study(checkout, folder="s3://b/little", set=stored)
    for sees in (True, False):
        assert checked(checkout, "study", "configs/study.yaml", sees=sees)[0][2:] == [
            "configs/study.yaml"
        ]
    study(checkout, folder="/s/little", set={"storage.runs": "/s/runs"})
    with pytest.raises(
        ConfigError, match=r"study\.yaml: storage\.prepared: 'prepared': is relative"
    ):
        checked(checkout, "study", "configs/study.yaml", sees=False)


def test_a_study_that_would_fail_there_fails_here(checkout: Path) -> None:
    study(checkout, folder="/s/little", methods={"base": {}})
    with pytest.raises(InputError, match=r"study\.yaml: .*baseline"):
        checked(checkout, "study", "configs/study.yaml")


def test_a_jobs_name_says_what_it_does(checkout: Path) -> None:
    names = [checked(checkout, "train", "configs/tiny.yaml")[1] for _ in range(2)]
    names.append(checked(checkout, "train", "configs/tiny.yaml", "--set", "seed=1")[1])
    names.append(checked(checkout, "study", "configs/study.yaml")[1])
    study(checkout, trials=3)
    names.append(checked(checkout, "study", "configs/study.yaml")[1])
    write_yaml(checkout / "configs/tiny.yaml", tiny_config(seed=7).model_dump(mode="json"))
    names.append(checked(checkout, "train", "configs/tiny.yaml")[1])
    study(checkout, trials=3, set={"train.num_epochs": 7})
    names.append(checked(checkout, "study", "configs/study.yaml")[1])
    assert names[0] == names[1]
    assert len({*names}) == len(names) - 1
