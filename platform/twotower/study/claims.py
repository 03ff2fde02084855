"""A study's claims held against its numbers: `claims.json`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from twotower.evaluation.significance import holm
from twotower.evaluation.two_way import Effect
from twotower.evaluation.verdict import not_worse, verdict
from twotower.study.contrasts import Contrasts, Name
from twotower.study.load import Study
from twotower.study.schema import Claim


class _Held(NamedTuple):
    """A claim on one dataset at one fraction."""

    claim: Claim
    place: tuple[str, float]
    effect: Effect
    """The gain; the difference itself where the other method finds nothing."""

    is_gain: bool
    p_holm: float | None
    """Of the primary family, where the claim is one of its contrasts."""


def hold(study: Study, contrasts: Contrasts) -> list[dict[str, Any]]:
    """Every claim wherever it was measured."""
    held = [one for claim in study.plan.claims for one in _everywhere(study, claim, contrasts)]
    adjusted = _corrected(held, whole=study.plan.claims_corrected == "study")
    return [_row(study, contrasts, one, adjusted.get(place)) for place, one in enumerate(held)]


def _corrected(held: Sequence[_Held], *, whole: bool) -> dict[int, float]:
    """The p-value of each claim, by its place, after Holm's correction.

    Of one dataset and fraction: a claim that is a contrast of the primary family has that family's;
    the others are a family of their own. Or all of the study's claims are one family.
    """
    known = {} if whole else dict(enumerate(one.p_holm for one in held))
    found = {place: p for place, p in known.items() if p is not None}
    families: dict[tuple[str, float] | None, dict[int, float]] = {}
    for place, one in enumerate(held):
        if place not in found and one.effect.p is not None and one.claim.margin is None:
            families.setdefault(None if whole else one.place, {})[place] = one.effect.p
    return found | {key: p for family in families.values() for key, p in holm(family).items()}


def _everywhere(study: Study, claim: Claim, contrasts: Contrasts) -> Iterator[_Held]:
    for dataset in claim.datasets or tuple(study.plan.datasets):
        for fraction in claim.fractions:
            name = Name((dataset, fraction), claim.method, claim.against, claim.metric)
            contrast = contrasts.found.get(name)
            if contrast is None:
                continue
            if not claim.compares_gains:
                found = contrast.relative() if contrast.first else contrast.effect
                yield _Held(claim, name.place, found, bool(contrast.first), contrast.p_holm)
                continue
            other = name._replace(metric=claim.more_than or claim.metric)
            if claim.grows_from is not None:
                other = other._replace(place=(dataset, claim.grows_from))
            apart = contrasts.less(name, other, study.plan.confidence)
            if apart is not None:
                yield _Held(claim, name.place, apart, True, None)


def _row(study: Study, contrasts: Contrasts, held: _Held, p_holm: float | None) -> dict[str, Any]:
    claim, (dataset, fraction), effect, is_gain, _ = held
    plan, paper = study.plan, claim.paper_gain(fraction)
    confidence = plan.confidence
    if not is_gain:
        # Only the direction can be held against the claim.
        found = verdict(effect, p_holm, first=1.0, paper_gain=None, confidence=confidence)
    elif claim.margin is None:
        found = verdict(effect, p_holm, first=1.0, paper_gain=paper, confidence=confidence)
    else:
        p_holm, found = None, not_worse(effect, claim.margin, confidence=confidence)
    notes: Mapping[bool, str] = {
        claim.grows_from is not None: f"gain at {fraction:g} less that at {claim.grows_from}",
        claim.more_than is not None: f"gain in {claim.metric} less that in {claim.more_than}",
        claim.margin
        is not None: f"not worse by {claim.margin or 0:.3g}: the interval's lower end is "
        "above that, one-sided and by itself",
        not is_gain: f"{plan.title_of(claim.against)} finds nothing, so there is no relative gain: "
        f"{plan.title_of(claim.method)} finds {effect.mean:.4f}",
    }
    return {
        "claim": claim.claim,
        "dataset": dataset,
        "fraction": fraction,
        "metric": claim.metric,
        "paper": paper,
        "ours": effect.mean if is_gain else None,
        "low": effect.low if is_gain else None,
        "high": effect.high if is_gain else None,
        "p_holm": p_holm,
        "seeds": effect.seeds,
        "verdict": found.word,
        "seeds_needed": found.seeds_needed,
        "note": notes.get(True, ""),
        **({} if claim.margin is None else {"margin": claim.margin}),
        **_size_share(contrasts, claim, held.place),
    }


def _size_share(
    contrasts: Contrasts, claim: Claim, place: tuple[str, float]
) -> dict[str, float | None]:
    """Table bytes of the method over those of the other; nothing where they are the same."""
    mine, theirs = (contrasts.table_bytes.get((place, n)) for n in (claim.method, claim.against))
    return {} if not mine or not theirs or mine == theirs else {"size_share": mine / theirs}
