"""The `fault` section: failures that a run inflicts on itself, to test its recovery."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from twotower.core.section import Count, Section


class Fault(Section):
    """One failure of one worker, at the first occasion at or after its step."""

    action: Literal["kill", "stop", "error", "nan"]
    """`kill`: SIGKILL to the worker's own process; `stop`: SIGSTOP; `error`: an exception; `nan`:
    the worker's part of one step's loss and gradient becomes NaN."""

    rank: Annotated[int, Field(ge=0)] = 0
    """The worker."""

    phase: Literal["start", "step", "all_reduce", "checkpoint", "evaluate"] = "step"
    """`start`: before the state is built; `step`: before a step; `all_reduce`: while the others
    wait in the sum of the gradients; `checkpoint`: when one of its files is written and the
    manifest is not; `evaluate`: while the others wait in a validation or test."""

    step: Annotated[int, Field(ge=0)] | None = None
    """Steps done before it happens; null = drawn from `fault.seed`. Phase `start` has none."""

    attempt: Count = 1
    """Start of the workers in which it happens, counted over the life of the run."""

    every: bool = False
    """Again at every later start: a crash loop."""

    @model_validator(mode="after")
    def _check(self) -> "Fault":
        if self.action == "nan" and self.phase != "all_reduce":
            raise ValueError(f"phase: {self.phase} sums nothing, nan needs phase all_reduce")
        if self.phase == "checkpoint" and self.rank:
            raise ValueError(
                f"rank: {self.rank} writes no checkpoint, phase checkpoint is rank 0's"
            )
        if self.phase == "start" and self.step is not None:
            raise ValueError("step: phase start comes before all steps, leave it out")
        return self


class Faults(Section):
    """What goes wrong, and what is written down about it. Empty in every run that is no test."""

    plan: tuple[Fault, ...] = ()
    """Each happens exactly once; one that never did fails the run at its end."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Draws the steps that the plan leaves open."""

    trace: bool = False
    """Write the rows of every step to `trace-<rank>.jsonl`."""

    @model_validator(mode="after")
    def _distinct(self) -> "Faults":
        for place, fault in enumerate(self.plan):
            if fault in self.plan[:place]:
                raise ValueError(
                    f"plan: fault {place} is there twice; give it an attempt of its own"
                )
        return self
