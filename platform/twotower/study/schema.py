"""The YAML of a study: which methods, on which data, how tuned, how often.

A small one:

    name: small
    title: Does CFM help?
    seeds: [101, 102, 103, 104, 105]
    set: {train.num_epochs: 12}
    space: {train.learning_rate: {low: 0.003, high: 0.1, scale: log}}
    datasets:
      debian: {config: ../debian.yaml, fractions: [1.0, 0.1]}
    trials: 8
    methods:
      baseline: {}
      cfm: {set: {ssl.weight: 0.3}, space: {ssl.weight: {low: 0.03, high: 3.0, scale: log}}}
    folder: runs/small
"""

from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from twotower.core.section import Count, Section, Share, Text

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Fraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Dataset(Section):
    """One config, at one or more shares of its train pairs."""

    config: Text
    """The experiment's YAML; a relative path counts from the study's own folder."""

    fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (1.0,)
    """Shares of the train pairs (`data.fraction`)."""

    set: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Changes of the config, by dotted path; after the study's own."""

    at: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])
    """Changes of the config at one of the fractions; after the study's own `at`."""

    seeds: Count | None = None
    """How many of the study's seeds are run here; null = all."""

    settings_from: Name | None = None
    """Dataset whose winners are taken over instead of tuning here; such rows are marked."""

    methods: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    """Methods that are run here, the baseline among them; null = all."""


class Method(Section):
    """A named change of the config, and what is tuned beside what all methods tune."""

    title: Text | None = None
    """As tables show it; null = the name."""

    set: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Changes of the config, by dotted path."""

    space: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Searched besides the study's own space."""

    settings_from: Name | None = None
    """Method whose winner is taken over (less what `set` names) instead of tuning."""

    curve: Text | None = None
    """Methods of one curve are joined in the figure of metric against table bytes."""


class Sweep(Section):
    """A figure: values changed along a line or over a grid, all else at a method's winner."""

    title: Text
    """Above the figure."""

    method: Name
    """Whose winner it starts from."""

    path: Text | None = None
    """The dotted path that is changed; null = those of `grid`."""

    values: tuple[Any, ...] = ()
    """What it is set to, two values or more."""

    grid: dict[Text, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        default_factory=dict[str, tuple[Any, ...]]
    )
    """In place of `path` and `values`: dotted paths and their values, of which every combination is
    a point, drawn against the bytes of its tables along the first path:
    `{model.embeddings.large.num_subspaces: [8, 16], model.embed_dim: [32, 64]}`."""

    datasets: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Where."""

    fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (1.0,)
    """Shares of the train pairs."""

    seeds: Count | None = None
    """How many of the study's seeds; null = all."""

    @property
    def points(self) -> list[dict[str, Any]]:
        """The changes of each point, by dotted path."""
        if self.path is not None:
            return [{self.path: value} for value in self.values]
        return [dict(zip(self.grid, one, strict=True)) for one in product(*self.grid.values())]

    @model_validator(mode="after")
    def _check(self) -> "Sweep":
        if (self.path is None) == (not self.grid) or (self.path is None and self.values):
            raise ValueError("path: give `path` and `values`, or `grid` alone")
        if len(self.points) < 2:
            raise ValueError(f"{'values' if self.path else 'grid'}: has fewer than two points")
        return self


class Claim(Section):
    """A sentence that the study's numbers uphold, contradict or leave open."""

    claim: Text
    """The sentence."""

    method: Name
    """Claimed to be better."""

    against: Name
    """Than this one."""

    metric: Text = "recall@50"
    """On test; a slice's has its name in front: `tail_recall@50`."""

    fractions: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (1.0,)
    """Where it is claimed."""

    datasets: tuple[Name, ...] | None = None
    """Where it is claimed; null = everywhere."""

    paper: float | None = None
    """The paper's relative gain on all of its data, signed: 0.041 = 4.1 % more; null = none."""

    paper_fractions: dict[str, float] = Field(default_factory=dict[str, float])
    """The same at other fractions: `{"0.1": 0.183}`."""

    grows_from: Fraction | None = None
    """The claim is that the relative gain is larger than at this fraction."""

    more_than: Text | None = None
    """The claim is that the relative gain is larger than that in this other metric."""

    margin: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The claim is that the method is not worse by this share of the other's metric: `0.02`."""

    @property
    def compares_gains(self) -> bool:
        """Whether it is about the difference of two gains."""
        return self.grows_from is not None or self.more_than is not None

    def paper_gain(self, fraction: float) -> float | None:
        """The paper's relative gain at a fraction; None where it gives none."""
        return self.paper_fractions.get(f"{fraction:g}", self.paper if fraction == 1 else None)

    @model_validator(mode="after")
    def _check(self) -> "Claim":
        if self.margin is not None and self.compares_gains:
            raise ValueError(
                "margin: a claim of not being worse is about one gain; leave the other"
            )
        if self.grows_from in self.fractions:
            raise ValueError(
                f"grows_from: {self.grows_from:g} is among the claim's own fractions, and no gain "
                "is larger than itself; take it out of one of them"
            )
        if self.more_than == self.metric:
            raise ValueError(
                f"more_than: {self.metric!r} is the claim's own metric, and no gain is larger than "
                "itself; name another"
            )
        if 0 in (self.paper, *self.paper_fractions.values()):
            raise ValueError("paper: 0 claims no direction; leave it out")
        if unknown := {*self.paper_fractions} - {f"{f:g}" for f in self.fractions}:
            raise ValueError(f"paper_fractions: {min(unknown)!r} is not among the fractions")
        return self


class PaperGain(Section):
    """A relative gain that the paper tells and that is shown beside ours; no claim."""

    method: Name
    """Of the study."""

    metric: Text
    """As a claim's."""

    gains: dict[str, float]
    """Share of the train pairs -> gain over the baseline: `{"1": 0.07, "0.1": 0.208}`."""


class StudyPlan(Section):
    """A study, whole."""

    name: Name
    """Stem of its folders."""

    title: Text
    """Heading of its page."""

    seeds: tuple[Seed, ...]
    """Training seeds of every method's final runs; not the one that trials train with. Empty: only
    trials are run, which compare methods on validation and leave test alone."""

    trials: Annotated[int, Field(ge=0)] = 8
    """Trials of every method's search, selected on validation; 0 = settings as they are."""

    exchange: tuple[Text, ...] = ()
    """Paths of `space` that methods exchange after their searches: on each dataset and fraction a
    method is tried once more, its winner else unchanged, at those of every other's winner. So none
    is better for its luck in what all of them search."""

    tuning_seed: Seed = 0
    """Training seed of the trials, and of the search's own draws."""

    set: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Changes of every config, by dotted path."""

    at: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])
    """Changes of every config at one fraction, after all others but a dataset's own `at`: a tenth
    of the pairs makes a tenth of the steps an epoch, so `{"0.1": {train.num_epochs: 100}}`."""

    space: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Searched for every method."""

    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    methods: Annotated[dict[Name, Method], Field(min_length=1)]

    baseline: Name = "baseline"
    """Method that all others are compared with."""

    primary: tuple[Text, ...] = ("recall@50", "tail_recall@50")
    """Metrics of the primary family: methods x these, within a dataset and fraction, Holm."""

    references: bool = True
    """Also measure popularity, content and item-kNN."""

    sweeps: dict[Name, Sweep] = Field(default_factory=dict[str, Sweep])
    claims: tuple[Claim, ...] = ()

    paper: tuple[PaperGain, ...] = ()
    """More of the paper's gains over the baseline, besides those of claims."""

    claims_corrected: Literal["place", "study"] = "place"
    """Claims that Holm's correction takes together: those of one dataset and fraction, or all."""

    folder: Text
    """Where ledger, tables and page go; a relative path counts from the current folder."""

    threads: Count = 1
    """CPUs (and torch threads) of one run; part of what makes it bitwise repeatable."""

    confidence: Annotated[Share, Field(gt=0.5)] = 0.95
    """Of all intervals."""

    kind: Literal["study"] = "study"
    """Tells a study's file from a config's."""

    @model_validator(mode="after")
    def _check(self) -> "StudyPlan":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: must be distinct, got {list(self.seeds)}")
        if self.tuning_seed in self.seeds:
            raise ValueError(
                f"seeds: {self.tuning_seed} is the tuning seed; final runs need seeds of their own"
            )
        self._known("baseline", [self.baseline], self.methods)
        self._known("exchange", self.exchange, self.space, "study's space")
        for name in ("popularity", "content", "item_knn"):
            if name in self.methods:
                raise ValueError(f"methods: {name!r} is a reference's name; take another")
        self._known("at", self.at, self._shares)
        for name, dataset in self.datasets.items():
            self._check_dataset(name, dataset)
        for name, method in self.methods.items():
            if method.settings_from is not None:
                self._check_borrowed(f"methods.{name}", name, method.settings_from, self.methods)
        if not self.seeds:
            self._check_trials_only()
        self._check_asked()
        return self

    def methods_on(self, dataset: str) -> tuple[str, ...]:
        """Methods that are run on a dataset."""
        return self.datasets[dataset].methods or tuple(self.methods)

    def places_of(self, claim: Claim) -> list[tuple[str, float]]:
        """Datasets and fractions whose runs a claim is about."""
        return [
            (name, fraction)
            for name in claim.datasets or self.datasets
            if {claim.method, claim.against} <= {*self.methods_on(name)}
            and claim.grows_from in (None, *self.datasets[name].fractions)
            for fraction in claim.fractions
            if fraction in self.datasets[name].fractions
        ]

    def title_of(self, method: str) -> str:
        """A method's name as people read it."""
        return self.methods[method].title or method

    @property
    def _shares(self) -> list[str]:
        """All fractions, as keys are written."""
        return list(dict.fromkeys(f"{f:g}" for d in self.datasets.values() for f in d.fractions))

    def _check_asked(self) -> None:
        for name, sweep in self.sweeps.items():
            self._known(f"sweeps.{name}.method", [sweep.method], self.methods)
            self._known(f"sweeps.{name}.datasets", sweep.datasets, self.datasets)
            self._check_seeds(f"sweeps.{name}", sweep.seeds)
        for place, told in enumerate(self.paper):
            self._known(f"paper.{place}.method", [told.method], self.methods)
            self._known(f"paper.{place}.gains", told.gains, self._shares)
        for place, claim in enumerate(self.claims):
            self._known(f"claims.{place}", [claim.method, claim.against], self.methods)
            self._known(f"claims.{place}.datasets", claim.datasets or (), self.datasets)
            self._check_measured(f"claims.{place}", claim)

    def _check_measured(self, key: str, claim: Claim) -> None:
        """Refuse a claim that no run of the study is about."""
        if claim.method == claim.against:
            raise ValueError(f"{key}: {claim.method!r} is held against itself; name another")
        found = {dataset for dataset, _ in self.places_of(claim)}
        if missing := [name for name in claim.datasets or () if name not in found]:
            raise ValueError(
                f"{key}.datasets: {missing[0]!r} does not run both methods at one of the claim's "
                "fractions; leave it out"
            )
        if not found:
            fractions = sorted({*claim.fractions, claim.grows_from or claim.fractions[0]})
            raise ValueError(
                f"{key}: no dataset runs both {claim.method!r} and {claim.against!r} at "
                f"{' and '.join(f'{f:g}' for f in fractions)}; add the runs, or leave it out"
            )

    def _check_trials_only(self) -> None:
        if self.references:
            raise ValueError("references: are measured on test, but seeds is empty; set false")
        for key, given in (("claims", self.claims), ("sweeps", self.sweeps)):
            if given:
                raise ValueError(f"{key}: need final runs, but seeds is empty; leave them out")
        if not self.trials:
            raise ValueError("trials: 0, and seeds is empty; nothing would be run")
        for kind, known in (("datasets", self.datasets), ("methods", self.methods)):
            for name, one in known.items():
                if one.settings_from is not None:
                    raise ValueError(
                        f"{kind}.{name}.settings_from: without seeds only what is tuned is run"
                    )

    def _check_dataset(self, name: str, dataset: Dataset) -> None:
        self._known(f"datasets.{name}.methods", dataset.methods or (), self.methods)
        if self.baseline not in self.methods_on(name):
            raise ValueError(
                f"datasets.{name}.methods: lack the baseline {self.baseline!r}, which all others "
                "are compared with; add it"
            )
        own = [f"{fraction:g}" for fraction in dataset.fractions]
        self._known(f"datasets.{name}.at", dataset.at, own, "dataset")
        self._check_seeds(f"datasets.{name}", dataset.seeds)
        if dataset.settings_from is not None:
            self._check_borrowed(f"datasets.{name}", name, dataset.settings_from, self.datasets)

    def _check_seeds(self, key: str, wanted: int | None) -> None:
        if wanted is not None and wanted > len(self.seeds):
            raise ValueError(f"{key}.seeds: {wanted}, but the study has {len(self.seeds)}")

    def _check_borrowed(self, key: str, name: str, lender: str, known: Any) -> None:
        self._known(f"{key}.settings_from", [lender], known)
        if lender == name or known[lender].settings_from is not None:
            raise ValueError(f"{key}.settings_from: {lender!r} must be one that is tuned itself")

    @staticmethod
    def _known(key: str, names: Any, known: Any, where: str = "study") -> None:
        for name in names:
            if name not in known:
                raise ValueError(f"{key}: no {name!r} in the {where}; it has {', '.join(known)}")
