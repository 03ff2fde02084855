"""A checkout as jobs are submitted from: empty entry files, a config, a space and a study."""

from pathlib import Path
from typing import Any

from small_experiment import write_yaml
from tiny_config import tiny_config
from twotower.runtime.entry import ACTIONS

STUDY: dict[str, Any] = {
    "kind": "study",
    "name": "little",
    "title": "A little study",
    "folder": "docs/little",
    "seeds": [],
    "trials": 2,
    "references": False,
    "primary": ["recall@10"],
    "space": {"loss.temperature": {"low": 0.05, "high": 0.5}},
    "datasets": {"tiny": {"config": "tiny.yaml"}},
    "methods": {"baseline": {}},
}


def write_checkout(folder: Path) -> Path:
    """Write one, `configs/{tiny,space,study}.yaml` in it; returns the folder."""
    for name in ("jobs", "tune", "configs", "platform/twotower"):
        (folder / name).mkdir(parents=True)
    for action in ACTIONS.values():
        (folder / action.file).write_text("")
    write_yaml(folder / "configs/tiny.yaml", tiny_config().model_dump(mode="json"))
    write_yaml(folder / "configs/space.yaml", {"ssl.weight": {"low": 0.1, "high": 1.0}})
    write_yaml(folder / "configs/study.yaml", STUDY)
    return folder
