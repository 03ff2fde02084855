"""How numbers and names are written for people: one place, for the page and the console."""

import math
import re
from collections.abc import Iterable, Mapping

METRIC = re.compile(
    r"^(?:(?P<slice>head|torso|tail|unseen|not_head)_)?(?P<name>[a-z_]+)@(?P<k>\d+)$"
)
"""A metric key: ``[<slice>_]<metric>@<k>``."""

METRIC_NAMES = {
    "recall": "Recall",
    "map": "MAP",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "coverage": "Coverage",
    "popularity": "Mean popularity",
}

SLICES = {
    "all": "All pairs",
    "head": "Head",
    "torso": "Torso",
    "tail": "Tail",
    "unseen": "Unseen",
    "not_head": "Not head",
}
"""Slices of the truth in their fixed order, with the names people read."""

SLICES_SHORT = {
    "all": "all",
    "head": "head (top 10 %)",
    "torso": "torso (next 40 %)",
    "tail": "tail (last 50 %)",
    "unseen": "unseen (never)",
    "not_head": "not head",
}
"""Slices as the console names them: readable without a legend."""

SLICE_MEANING = {
    "all": "every true item",
    "head": "true item among the top 10 % by train count",
    "torso": "true item among the next 40 %",
    "tail": "true item among the last 50 % of those seen in train",
    "unseen": "true item without a train pair",
    "not_head": "true item outside the head",
}


def split_metric(key: str) -> tuple[str, str, int] | None:
    """(slice, metric, k) of a metric key such as ``tail_recall@50``; None for other keys."""
    match = METRIC.match(key)
    return (match["slice"] or "all", match["name"], int(match["k"])) if match else None


def metric_label(key: str) -> str:
    """``tail_recall@50`` -> ``Tail Recall@50``; a key that is no metric stays as it is."""
    parts = split_metric(key)
    if parts is None:
        return key
    part, name, k = parts
    prefix = "" if part == "all" else SLICES[part] + " "
    return f"{prefix}{METRIC_NAMES.get(name, name)}@{k}"


def method_label(name: str) -> str:
    """A method's name as people read it: ``cfm_tuned`` -> ``cfm tuned``."""
    return name.replace("_", " ")


def score(value: float, signed: bool = False) -> str:
    """A metric or a difference: four decimals, a real minus sign, never ``-0.0000``."""
    shown = f"{value:+.4f}" if signed else f"{value:.4f}"
    if float(shown) == 0:
        shown = "0.0000"
    return shown.replace("-", "−")  # noqa: RUF001 the typographic minus is meant


def compact(value: float) -> str:
    """A number in at most about five characters: 1200 -> 1.2k, 0.000031 -> 3.1e-5."""
    if value == 0:
        return "0"
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.3g}{unit}"
    if size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"


def integer(value: float) -> str:
    """A count with thin spaces between thousands: 52 431."""
    return f"{value:,.0f}".replace(",", "\u202f")


def percent(share: float) -> str:
    """A share of 1 in per cent with one decimal."""
    value = share * 100
    return "< 0.1 %" if 0 < value < 0.05 else f"{value:.1f} %"


def gain(share: float) -> str:
    """A relative difference with its sign: +4.1 %, −0.3 %, 0.0 %, from ten times on +1200 %."""  # noqa: RUF002 the typographic minus is meant
    value = share * 100
    shown = f"{value:+.0f}" if abs(value) >= 1000 else f"{value:+.1f}"
    if float(shown) == 0:
        shown = "0.0"
    return shown.replace("-", "−") + " %"  # noqa: RUF001 the typographic minus is meant


def p_value(value: float) -> str:
    """A probability with three decimals: 0.012, < 0.001."""
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"


def core_time(value: float) -> str:
    """Core-seconds as people count them: 12 core-hours, 0.3 core-hours, 4 core-minutes."""
    if value >= 600:
        hours = value / 3600
        return f"{hours:.0f} core-hours" if hours >= 100 else f"{hours:.1f} core-hours"
    return f"{value / 60:.0f} core-minutes" if value >= 60 else f"{value:.0f} core-seconds"


def seconds(value: float) -> str:
    """A duration: 0.4 s, 12 s, 3 min 05 s, 2 h 10 min."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def megabytes(value: float) -> str:
    """A size given in MiB: 812 MiB, 3.4 GiB."""
    return f"{value / 1024:.1f} GiB" if value >= 1024 else f"{value:.0f} MiB"


def byte_size(value: float) -> str:
    """A number of bytes: 940 B, 12.3 kB, 1.23 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"


def rounded(value: object) -> str:
    """A value as `plain`, numbers at three digits."""
    return compact(value) if isinstance(value, float) else plain(value)


def plain(value: object) -> str:
    """A config value as it would stand in YAML, on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {plain(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(plain(v) for v in value) + "]"
    return str(value)


def listed(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *first, end = list(names) or [""]
    return f"{', '.join(first)} and {end}" if first else end
