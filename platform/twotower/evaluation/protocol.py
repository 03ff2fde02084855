"""Certificates: what a metric was measured on, and whether two metrics may be compared."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from twotower.core.config import Eval
from twotower.core.errors import InputError
from twotower.evaluation import metrics, slices
from twotower.evaluation.ties import TIE_RULE

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]

PROTOCOL_VERSION = 1
"""Raised whenever code here changes a number."""

_FILTERS = {"validation": "train positives", "test": "train and validation positives"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What only the caller knows about an evaluation."""

    part: Literal["validation", "test"]

    split: Json
    """How the parts were made: the `data.split` section and `data.seed`, or a sentence."""

    pairs_digest: str
    """Digest of the part's raw pairs, before any filter."""

    candidates_digest: str
    """Digest of the catalogue's item ids."""

    fraction: float = 1.0
    """Share of the train positives that the filter knows: it changes the candidates."""

    subject: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """What was measured: checkpoint, config, seed, prepared data, fraction, untouched rows."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Goes with every metric: how it was measured, and of what."""

    protocol: Mapping[str, Json]
    """Must be equal for two results to be compared."""

    subject: Mapping[str, Json]
    """May differ."""

    def document(self) -> dict[str, Json]:
        """The certificate as JSON values."""
        return {"protocol": self.protocol, "subject": self.subject}

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> "Certificate":
        """Read what `document` wrote.

        Raises:
            InputError: a part is missing.
        """
        missing = [name for name in ("protocol", "subject") if name not in document]
        if missing:
            raise InputError(
                f"certificate: {' and '.join(missing)} missing; evaluate the run again to write it"
            )
        return cls(document["protocol"], document["subject"])


def certify(setting: Setting, config: Eval) -> Certificate:
    """The certificate of an evaluation under ``config``."""
    return Certificate(
        {
            "version": PROTOCOL_VERSION,
            "part": setting.part,
            "split": setting.split,
            "pairs": setting.pairs_digest,
            "candidates": setting.candidates_digest,
            "filter": _FILTERS[setting.part] if config.filter_seen else "none",
            "filter_fraction": setting.fraction if config.filter_seen else 1.0,
            "own_item": "never a candidate",
            "scores": "all candidates, first K in float64",
            "ties": TIE_RULE,
            "k": list(config.k),
            "slices": {name: slices.DEFINITIONS[name] for name in config.slices},
            "metrics": metrics.DEFINITIONS,
        },
        setting.subject,
    )


def require_equal(certificates: Mapping[str, Certificate]) -> None:
    """Refuse to compare results of different protocols.

    Args:
        certificates: by the name of their run.

    Raises:
        InputError: names the first field that differs, both runs and both values.
    """
    runs = list(certificates)
    for other in runs[1:]:
        first = dict(_leaves(certificates[runs[0]].protocol))
        second = dict(_leaves(certificates[other].protocol))
        for key in [*first, *(key for key in second if key not in first)]:
            values = first.get(key, "absent"), second.get(key, "absent")
            if values[0] != values[1]:
                raise InputError(
                    f"{runs[0]} and {other} can't be compared: protocol.{key} is {values[0]!r} in "
                    f"one and {values[1]!r} in the other; evaluate both alike, on one split"
                )


def _leaves(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every value that is no mapping, with its dotted path; sequences become lists, as in JSON."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield path, list(value)
    else:
        yield path, value
