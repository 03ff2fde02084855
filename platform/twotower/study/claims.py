"""A study's claims held against its numbers: `claims.json`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from twotower.evaluation.significance import holm
from twotower.evaluation.two_way import Effect
from twotower.evaluation.verdict import Verdict, not_worse, verdict
from twotower.study.contrasts import Contrast, Contrasts, Name
from twotower.study.load import Study
from twotower.study.schema import Claim


class _Held(NamedTuple):
    """A claim on one dataset at one fraction."""

    claim: Claim
    place: tuple[str, float]
    contrast: Contrast
    gain: Effect | None
    """What is claimed to be above 0: a relative gain, or one less another; None where the method
    that it is relative to finds too little for one."""


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
            if one is not None and one.contrast.p_holm is not None:
                found[number] = one.contrast.p_holm
        elif claim.margin is None:
            p = _p(one) if one is not None else None
            families.setdefault(None if whole else place, {})[number] = 1.0 if p is None else p
    found |= {number: p for family in families.values() for number, p in holm(family).items()}
    return {n: p for n, p in found.items() if planned[n][0] is not None}


def _p(held: _Held) -> float | None:
    """Of one claim; None where one seed alone was run, or it compares gains that aren't known."""
    found = held.gain if held.gain or held.claim.compares_gains else held.contrast.effect
    return found.p if found is not None and found.seeds > 1 else None


def _measured(
    study: Study, contrasts: Contrasts, claim: Claim, place: tuple[str, float]
) -> _Held | None:
    name = Name(place, claim.method, claim.against, claim.metric)
    contrast = contrasts.found.get(name)
    if contrast is None or not claim.compares_gains:
        return contrast and _Held(claim, place, contrast, contrast.gain)
    other = name._replace(metric=claim.more_than or claim.metric)
    if claim.grows_from is not None:
        other = other._replace(place=(place[0], claim.grows_from))
    if other not in contrasts.found:
        return None
    return _Held(claim, place, contrast, contrasts.less(name, other, study.plan.confidence))


def _verdict(held: _Held, p_holm: float | None, confidence: float) -> Verdict:
    claim, gain = held.claim, held.gain
    if gain is None:
        if claim.compares_gains or claim.margin is not None:
            return Verdict("underpowered")
        # Only the direction can be held against the claim.
        effect = held.contrast.effect
        return verdict(effect, p_holm, first=1.0, paper_gain=None, confidence=confidence)
    if claim.margin is not None:
        return not_worse(gain, claim.margin, confidence=confidence)
    paper = claim.paper_gain(held.place[1])
    found = verdict(gain, p_holm, first=1.0, paper_gain=paper, confidence=confidence)
    return Verdict("not_shown") if found.word == "holds" and _is_a_loss(held) else found


def _is_a_loss(held: _Held) -> bool:
    """Whether the gain that is claimed to be the larger one is none."""
    return held.claim.compares_gains and held.contrast.effect.mean <= 0


def _note(study: Study, held: _Held) -> str:
    claim, contrast, plan = held.claim, held.contrast, study.plan
    if held.gain is None:
        found = f"{plan.title_of(claim.method)} {contrast.first + contrast.effect.mean:.4f}"
        return (
            f"no relative gain over {plan.title_of(claim.against)}, whose interval reaches 0: it "
            f"finds {contrast.first:.4f}, {found}"
        )
    if claim.margin is not None:
        return (
            f"not worse by {claim.margin:.3g}: the interval's lower end is above that, one-sided "
            "and by itself"
        )
    told = ""
    if claim.grows_from is not None:
        told = f"gain at {held.place[1]:g} less that at {claim.grows_from}"
    elif claim.more_than is not None:
        told = f"gain in {claim.metric} less that in {claim.more_than}"
    loss = held.contrast.gain.mean if _is_a_loss(held) and held.contrast.gain else None
    return told if loss is None else f"{told}; itself it is a loss, {loss:+.1%}"


def _row(study: Study, contrasts: Contrasts, held: _Held, p_holm: float | None) -> dict[str, Any]:
    claim, (dataset, fraction), contrast, gain = held
    paper = claim.paper_gain(fraction)
    ours, low, high = (gain.mean, gain.low, gain.high) if gain is not None else (None,) * 3
    if claim.margin is not None or (gain is None and claim.compares_gains):
        p_holm = None
    found = _verdict(held, p_holm, study.plan.confidence)
    within = None if paper is None or low is None or high is None else low <= paper <= high
    return {
        "claim": claim.claim,
        "method": claim.method,
        "against": claim.against,
        "dataset": dataset,
        "fraction": fraction,
        "metric": claim.metric,
        "paper": paper,
        "ours": ours,
        "low": low,
        "high": high,
        "excludes_paper": None if within is None else not within,
        "p_holm": p_holm,
        "seeds": (gain or contrast.effect).seeds,
        "verdict": found.word,
        "seeds_needed": found.seeds_needed,
        "note": _note(study, held),
        "margin": claim.margin,
        **_size_share(contrasts, claim, held.place),
    }


def _size_share(
    contrasts: Contrasts, claim: Claim, place: tuple[str, float]
) -> dict[str, float | None]:
    """Table bytes of the method over those of the other; nothing where they are the same."""
    mine, theirs = (contrasts.table_bytes.get((place, n)) for n in (claim.method, claim.against))
    return {} if not mine or not theirs or mine == theirs else {"size_share": mine / theirs}
