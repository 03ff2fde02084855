"""The table of claims: what the paper found, what was found here, and what may be said of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from twotower.report import clipped, svg
from twotower.report.folder import as_number
from twotower.report.formats import gain, integer, metric_label, p_value
from twotower.report.svg import Scale
from twotower.study import marks
from twotower.study.document import Document, setting_of, text_of
from twotower.study.overview import MOST
from twotower.study.views import DASH

WIDTH, HEIGHT = 130.0, 24.0

SHOWN = {
    "holds": ("✓", "holds"),
    "contradicted": ("✗", "contradicted"),
    "not_shown": ("○", "not shown"),
    "underpowered": ("?", "underpowered"),
}
"""Sign and word of each verdict."""

_DECIDED = ("holds", "contradicted")


@dataclass(frozen=True, slots=True)
class ClaimLine:
    """A claim in one setting."""

    place: str
    """Where; with metric and methods if the claim's lines differ in them."""

    marks: list[str]
    """What is to be known of the runs behind it: ``undertrained: CFM 4 of 5``; and whether what
    isn't trained finds more."""

    paper: str
    ours: str
    interval: str
    picture: Markup
    p: str
    verdict: str
    """Class of the style sheet: a verdict's name, or `open`."""

    sign: str
    word: str
    asides: list[str]
    """Of an underpowered one: seeds that would be enough, or why no number of them is known;
    whether the paper's gain is ruled out all the same."""

    note: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim with every setting it was looked at in."""

    text: str
    about: str
    """Metric and methods of all its lines; empty where they differ."""

    counts: list[tuple[str, str, int]]
    """(class, word, how often) of the verdicts there are."""

    lines: list[ClaimLine]


def claim_groups(document: Document, claims: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Claims in their order, those of one text together."""
    texts = dict.fromkeys(text_of(claim, "claim") for claim in claims)
    return [
        _group(document, text, [claim for claim in claims if text_of(claim, "claim") == text])
        for text in texts
    ]


def _group(document: Document, text: str, own: Sequence[Mapping[str, Any]]) -> Claim:
    counts = Counter(_verdict(claim) for claim in own)
    words = {verdict: word for verdict, (_, word) in SHOWN.items()}
    words["holds"] = "holds" if counts["holds"] == 1 else "hold"
    told = [(verdict, word, counts[verdict]) for verdict, word in words.items()]
    parts = [(_metric(claim), _pair(document, claim)) for claim in own]
    # what all lines share stands above them, the rest in each
    is_shared = [len({part[n] for part in parts}) == 1 for n in (0, 1)]
    above = [part for part, shared in zip(parts[0], is_shared, strict=True) if shared and part]
    scale = _scale(own)
    lines = [
        _line(
            document,
            claim,
            scale,
            [x for x, shared in zip(part, is_shared, strict=True) if x and not shared],
        )
        for claim, part in zip(own, parts, strict=True)
    ]
    return Claim(text, ", ".join(above), [found for found in told if found[2]], lines)


def _scale(own: Sequence[Mapping[str, Any]]) -> Scale:
    """One axis for a claim, as far as the paper's figures and what is decided go."""

    def numbers(claims: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[float]:
        return [v for c in claims for key in keys if (v := as_number(c.get(key))) is not None]

    ours = ("ours", "low", "high")
    decided = [claim for claim in own if _verdict(claim) in _DECIDED]
    sure = [*numbers(own, ["paper"]), *numbers(decided, ours)]
    ends = clipped.reach([*numbers(own, ours), *sure, 0.0], sure, MOST)
    return Scale.fit(ends, (6.0, WIDTH - 6))


def _verdict(claim: Mapping[str, Any]) -> str:
    verdict = text_of(claim, "verdict")
    return verdict if verdict in SHOWN else "open"


def _metric(claim: Mapping[str, Any]) -> str:
    return metric_label(text_of(claim, "metric"))


def _titles(document: Document, claim: Mapping[str, Any]) -> tuple[str, str]:
    mine, theirs = (text_of(claim, key) for key in ("method", "against"))
    return document.title(mine), document.title(theirs)


def _pair(document: Document, claim: Mapping[str, Any]) -> str:
    return " against ".join(_titles(document, claim)) if text_of(claim, "against") else ""


def _line(
    document: Document, claim: Mapping[str, Any], scale: Scale, told: Sequence[str]
) -> ClaimLine:
    paper, ours, low, high, p = (
        as_number(claim.get(key)) for key in ("paper", "ours", "low", "high", "p_holm")
    )
    verdict = _verdict(claim)
    sign, word = SHOWN.get(verdict, ("…", "open"))
    place = setting_of(claim).label if claim.get("dataset") else "all data"
    found = marks.shown_of_pair(claim, _titles(document, claim))
    return ClaimLine(
        place=", ".join([place, *told]),
        marks=[*marks.words(found), *_untrained(document, claim)],
        paper=gain(paper) if paper is not None else DASH,
        ours=gain(ours) if ours is not None else DASH,
        interval=f"{gain(low)} to {gain(high)}" if low is not None and high is not None else "",
        picture=_range(paper, ours, (low, high), scale),
        p=p_value(p) if p is not None else DASH,
        verdict=verdict,
        sign=sign,
        word=word,
        asides=_asides(claim) if verdict == "underpowered" else [],
        note=text_of(claim, "note"),
    )


def _untrained(document: Document, claim: Mapping[str, Any]) -> list[str]:
    above = text_of(claim, "untrained_above")
    return [f"{document.title(above)}, untrained, is above both"] if above else []


def _asides(claim: Mapping[str, Any]) -> list[str]:
    seeds = as_number(claim.get("seeds_needed"))
    told = [f"{integer(seeds)} seeds would do" if seeds is not None else _why_none(claim)]
    return told + ["the paper's gain is outside"] * bool(claim.get("excludes_paper"))


def _why_none(claim: Mapping[str, Any]) -> str:
    """Why no number of seeds is known that would make an underpowered claim's interval narrow."""
    found = {key: as_number(claim.get(key)) for key in ("paper", "margin", "ours", "low", "seeds")}
    if found["seeds"] == 1:
        return "one seed: its spread is not known"
    if found["ours"] is None or found["low"] is None:
        return "no gain to power for"
    if found["paper"] is None and found["margin"] is None:
        return "no paper figure to power for"
    return "more queries, not seeds"


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
    if ours is not None:
        whole = (low, high) if low is not None and high is not None else None
        parts += clipped.interval(ours, whole, scale, middle, (gain(ours), "dot"))
    told = f"paper {gain(paper)}, " if paper is not None else ""
    told += f"here {gain(ours)}" if ours is not None else "not measured here"
    return svg.picture(WIDTH, HEIGHT, parts, told, "range")
