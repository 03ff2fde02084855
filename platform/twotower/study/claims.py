"""A study's claims held against its numbers: `claims.json`."""

from collections.abc import Mapping, Sequence
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


_Planned = tuple[_Held | None, Claim, tuple[str, float]]


def hold(study: Study, contrasts: Contrasts) -> list[dict[str, Any]]:
    """Every claim wherever it was measured."""
    planned = [
        (_measured(study, contrasts, claim, place), claim, place)
        for claim in study.plan.claims
        for place in study.plan.places_of(claim)
    ]
    adjusted = _corrected(study, planned)
    return [
        _row(study, contrasts, one, adjusted.get(number))
        for number, (one, _, _) in enumerate(planned)
        if one is not None
    ]


def _corrected(study: Study, planned: Sequence[_Planned]) -> dict[int, float]:
    """The p-value of each measured claim, by its place, after Holm's correction.

    Of one dataset and fraction: a claim that is a contrast of the primary family has that family's;
    the others are a family of their own. Or all of the study's claims are one family. A claim that
    is not measured yet, or by one seed alone, counts as no finding: p-values don't grow later.
    """
    plan, found = study.plan, dict[int, float]()
    whole = plan.claims_corrected == "study"
    families: dict[tuple[str, float] | None, dict[int, float]] = {}
    for number, (one, claim, place) in enumerate(planned):
        is_primary = claim.against == plan.baseline and claim.metric in plan.primary
        if is_primary and not claim.compares_gains and not whole:
            if one is not None and one.p_holm is not None:
                found[number] = one.p_holm
        elif claim.margin is None:
            p = None if one is None or one.effect.seeds < 2 else one.effect.p
            families.setdefault(None if whole else place, {})[number] = 1.0 if p is None else p
    found |= {number: p for family in families.values() for number, p in holm(family).items()}
    return {n: p for n, p in found.items() if planned[n][0] is not None}


def _measured(
    study: Study, contrasts: Contrasts, claim: Claim, place: tuple[str, float]
) -> _Held | None:
    name = Name(place, claim.method, claim.against, claim.metric)
    contrast = contrasts.found.get(name)
    if contrast is None:
        return None
    if not claim.compares_gains:
        found = contrast.gain or contrast.effect
        return _Held(claim, place, found, contrast.gain is not None, contrast.p_holm)
    other = name._replace(metric=claim.more_than or claim.metric)
    if claim.grows_from is not None:
        other = other._replace(place=(place[0], claim.grows_from))
    apart = contrasts.less(name, other, study.plan.confidence)
    return None if apart is None else _Held(claim, place, apart, True, None)


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
        "method": claim.method,
        "against": claim.against,
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
        "margin": claim.margin,
        **_size_share(contrasts, claim, held.place),
    }


def _size_share(
    contrasts: Contrasts, claim: Claim, place: tuple[str, float]
) -> dict[str, float | None]:
    """Table bytes of the method over those of the other; nothing where they are the same."""
    mine, theirs = (contrasts.table_bytes.get((place, n)) for n in (claim.method, claim.against))
    return {} if not mine or not theirs or mine == theirs else {"size_share": mine / theirs}
