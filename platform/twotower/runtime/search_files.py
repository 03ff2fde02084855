"""What a search leaves for people, the report and `twotower train`.

runs/<name>/search.json   the whole search: space, trials, importances, resources, certificate
runs/<name>/trials.jsonl  its journal
runs/<name>/best.yaml     the winner as a config that can be run
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from twotower.core.config import ExperimentConfig
from twotower.core.errors import ConfigError, InputError
from twotower.core.loading import build_config, dump_yaml, parse_yaml
from twotower.core.records import differences, environment, identity
from twotower.core.space import SearchSpace
from twotower.core.space_loading import build_space
from twotower.core.storage import Store
from twotower.runtime.journal import FILE as JOURNAL
from twotower.runtime.journal import Trial, best_of, counts
from twotower.runtime.proposals import importances

RESULT = "search.json"
WINNER = "best.yaml"
CONFIG = "config.yaml"
SPACE = "space.yaml"
STOPS = "stops"
_OWN_FILES = {RESULT, WINNER, CONFIG, SPACE, STOPS, JOURNAL, ".lease"}
_MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class SearchSubject:
    """What is searched; two searches with equal subjects are the same one."""

    config: ExperimentConfig
    space: SearchSpace

    def document(self) -> dict[str, Any]:
        """JSON form: the config's identity and the space."""
        return {"config": identity(self.config), "space": self.space.document()}


def write_subject(store: Store, subject: SearchSubject) -> None:
    """Write what is searched, so that the search can go on from its directory alone."""
    store.write_bytes(CONFIG, dump_yaml(subject.config.model_dump(mode="json")).encode())
    store.write_bytes(SPACE, dump_yaml(dict(subject.space.source)).encode())


def read_subject(store: Store) -> tuple[SearchSubject, int]:
    """What is searched in a directory, and the trials it will have.

    Raises:
        InputError: the directory holds no search, or its files are damaged.
    """
    if not store.exists(RESULT):
        raise InputError(f"{store.uri}: holds no search (no {RESULT})")
    texts = {name: store.read_bytes(name).decode(errors="replace") for name in (CONFIG, SPACE)}
    documents = {name: parse_yaml(text, f"{store.uri}/{name}") for name, text in texts.items()}
    config = build_config(documents[CONFIG], f"{store.uri}/{CONFIG}")
    space = build_space(documents[SPACE], config, f"{store.uri}/{SPACE}")
    return SearchSubject(config, space), int(store.read_json(RESULT)["total"])


def read_result(store: Store, subject: SearchSubject) -> dict[str, Any]:
    """What a search directory says so far; empty where there is none.

    Raises:
        InputError: something else lives there; of another search the first differences are named.
    """
    if not store.exists(RESULT):
        if other := set(store.list()) - _OWN_FILES:
            raise InputError(
                f"{store.uri}: is no search (it holds {min(other)}); take another name"
            )
        return {}
    document: dict[str, Any] = store.read_json(RESULT)
    old = {key: document.get(key) for key in ("config", "space")}
    if other := differences(old, subject.document()):
        shown = "; ".join(other[:5])
        raise ConfigError(
            f"{store.uri}: holds another search ({shown}); take another --name or go on with "
            "the same config and space"
        )
    return document


def write_result(
    store: Store, subject: SearchSubject, trials: tuple[Trial, ...], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write search.json, and best.yaml where a trial has won; returns the former."""
    ended = [trial for trial in trials if trial.ended]
    best = best_of(ended)
    metric = subject.config.eval.select
    document = {
        **subject.document(),
        **facts,
        "metric": metric,
        "part": "validation",
        "trials": [asdict(trial) for trial in ended],
        "counts": counts(ended),
        "best": None if best is None else best.number,
        "importances": importances(subject.space, ended),
        "winner": None if best is None else f"{store.uri}/{WINNER}",
        "cpu_s": sum(trial.cpu_s for trial in ended),
        "environment": environment(),
    }
    if best is not None:
        text = winner_text(subject, best, _header(store, document, best))
        store.write_bytes(WINNER, text.encode())
    store.write_json(RESULT, document)
    return document


def is_current(store: Store, document: Mapping[str, Any], ended: Iterable[Trial]) -> bool:
    """Whether search.json, as read, tells of the journal's ended trials and its winner stands.

    The journal is written at every trial's end, the two files at a call's start and end only.
    """
    journalled = json.loads(json.dumps([asdict(trial) for trial in ended]))
    has_winner = document.get("winner") is None or store.exists(WINNER)
    return document.get("trials") == journalled and has_winner


def certificate(subject: SearchSubject, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the trials' metric was measured on, so that nobody takes it for a test figure."""
    config = subject.config
    return {
        "part": "validation",
        "metric": config.eval.select,
        "filter_seen": config.eval.filter_seen,
        "prepared": manifest["fingerprint"],
        "digests": manifest.get("digests", {}),
        "selection": "best of all trials on validation; test is read once, by training the winner",
    }


def winner_config(subject: SearchSubject, best: Trial) -> ExperimentConfig:
    """The winning config, under a name of its own."""
    config = subject.space.apply(subject.config, best.params)
    name = f"{config.name[: _MAX_NAME - len('-tuned')]}-tuned"
    return config.model_copy(update={"name": name})


def winner_text(subject: SearchSubject, best: Trial, header: str) -> str:
    """The winning config as YAML under a comment; ConfigError if it would not read back equal."""
    config = winner_config(subject, best)
    body = dump_yaml(config.model_dump(mode="json"))
    if build_config(parse_yaml(body, WINNER), WINNER) != config:
        raise ConfigError(f"{WINNER}: the winning config can't be written as it is")
    return f"{header}\n{body}"


def _header(store: Store, document: Mapping[str, Any], best: Trial) -> str:
    ended = ", ".join(f"{count} {state}" for state, count in document["counts"].items() if count)
    hardware = document["environment"]
    lines = (
        f"Winner of a search: trial {best.number} of {len(document['trials'])} ({ended}).",
        f"Source:   {store.uri}/{RESULT}",
        f"Command:  twotower train {store.uri}/{WINNER}",
        f"Cost:     the search took {document['seconds']:.0f} s "
        f"({document['cpu_s']:.0f} CPU s in trials) on {hardware['cpus']} x {hardware['cpu']}",
        f"Expected: validation {document['metric']} {best.value:.4f} at best, chosen among all "
        "trials; test was not looked at",
        f"Last true: {datetime.now(UTC).date()}",
    )
    return "".join(f"# {line}\n" for line in lines)
