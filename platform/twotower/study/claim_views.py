"""The table of claims: what the paper found, what was found here, and what may be said of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from twotower.report import svg
from twotower.report.folder import as_number
from twotower.report.formats import gain, integer, metric_label, p_value
from twotower.report.svg import Scale
from twotower.study.document import setting_of, text_of
from twotower.study.views import DASH

WIDTH, HEIGHT = 130.0, 24.0

SHOWN = {
    "holds": ("✓", "holds"),
    "contradicted": ("✗", "contradicted"),
    "not_shown": ("○", "not shown"),
    "underpowered": ("?", "underpowered"),
}
"""Sign and word of each verdict."""


@dataclass(frozen=True, slots=True)
class ClaimLine:
    """A claim in one setting."""

    place: str
    """Where, and in which metric if the claim's lines differ in it."""

    paper: str
    ours: str
    interval: str
    picture: Markup
    p: str
    verdict: str
    """Class of the style sheet: a verdict's name, or `open`."""

    sign: str
    word: str
    seeds: str
    note: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with every setting it was looked at in."""

    text: str
    metric: str
    """Of all its lines; empty where they differ."""

    counts: list[tuple[str, str, int]]
    """(class, word, how often) of the verdicts there are."""

    lines: list[ClaimLine]


def claim_groups(claims: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Claims in their order, those of one text together."""
    texts = dict.fromkeys(text_of(claim, "claim") for claim in claims)
    groups: list[Claim] = []
    for text in texts:
        own = [claim for claim in claims if text_of(claim, "claim") == text]
        keys = ("paper", "ours", "low", "high")
        ends = [v for c in own for key in keys if (v := as_number(c.get(key))) is not None]
        scale = Scale.fit([*ends, 0.0], (6.0, WIDTH - 6))
        counts = Counter(_verdict(claim) for claim in own)
        words = {verdict: word for verdict, (_, word) in SHOWN.items()}
        words["holds"] = "holds" if counts["holds"] == 1 else "hold"
        told = [(verdict, word, counts[verdict]) for verdict, word in words.items()]
        told = [(verdict, word, number) for verdict, word, number in told if number]
        metrics = list(dict.fromkeys(_metric(claim) for claim in own))
        shared = metrics[0] if len(metrics) == 1 else ""
        lines = [_line(claim, scale, with_metric=not shared) for claim in own]
        groups.append(Claim(text, shared, told, lines))
    return groups


def _verdict(claim: Mapping[str, Any]) -> str:
    verdict = text_of(claim, "verdict")
    return verdict if verdict in SHOWN else "open"


def _metric(claim: Mapping[str, Any]) -> str:
    return metric_label(text_of(claim, "metric"))


def _line(claim: Mapping[str, Any], scale: Scale, with_metric: bool) -> ClaimLine:
    paper, ours, low, high, p, seeds = (
        as_number(claim.get(key))
        for key in ("paper", "ours", "low", "high", "p_holm", "seeds_needed")
    )
    verdict = _verdict(claim)
    sign, word = SHOWN.get(verdict, ("…", "open"))
    wanted = integer(seeds) if seeds is not None else ""
    aimed = paper is not None or as_number(claim.get("margin")) is not None
    several = (as_number(claim.get("seeds")) or 0) > 1
    if verdict == "underpowered" and seeds is None and aimed and several and ours is not None:
        wanted = "more queries"  # with any number of seeds the queries alone are too few
    place = setting_of(claim).label if claim.get("dataset") else "all data"
    return ClaimLine(
        place=", ".join(x for x in (place, _metric(claim) if with_metric else "") if x),
        paper=gain(paper) if paper is not None else DASH,
        ours=gain(ours) if ours is not None else DASH,
        interval=f"{gain(low)} to {gain(high)}" if low is not None and high is not None else "",
        picture=_range(paper, ours, (low, high), scale),
        p=p_value(p) if p is not None else DASH,
        verdict=verdict,
        sign=sign,
        word=word,
        seeds=wanted,
        note=text_of(claim, "note"),
    )


def _range(
    paper: float | None,
    ours: float | None,
    ends: tuple[float | None, float | None],
    scale: Scale,
) -> Markup:
    """Zero, the paper's gain as a bar, ours as a point with its interval."""
    middle = HEIGHT / 2
    parts = [svg.line(scale(0), 1, scale(0), HEIGHT - 1, class_="zero")]
    if paper is not None:
        parts.append(svg.line(scale(paper), 4, scale(paper), HEIGHT - 4, class_="paper"))
    low, high = ends
    if low is not None and high is not None:
        parts.append(svg.line(scale(low), middle, scale(high), middle, class_="whisker"))
    if ours is not None:
        parts.append(svg.dot(scale(ours), middle, gain(ours), 4))
    told = f"paper {gain(paper)}, " if paper is not None else ""
    told += f"here {gain(ours)}" if ours is not None else "not measured here"
    return svg.picture(WIDTH, HEIGHT, parts, told, "range")
