"""How long and how wide a search goes: checked where it is made, read back where it goes on."""

import re
from dataclasses import dataclass

from twotower.core.errors import InputError
from twotower.core.storage import Store
from twotower.runtime.search_files import RESULT

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How long and how wide a search goes; none of it changes what a trial is.

    Raises:
        InputError: a number is below 1, or the name can't be that of a directory.
    """

    trials: int
    """Trials in all, those of earlier calls included."""

    name: str | None = None
    """Directory under `storage.runs`; null = config name, `search` and 8 of the fingerprint."""

    max_concurrent: int | None = None
    """Most trials at once; null = as many as fit the cluster."""

    prune: bool = True
    """Stop weak trials early (ASHA)."""

    def __post_init__(self) -> None:
        """Refuse what can't be, before anything starts."""
        if self.trials < 1:
            raise InputError(f"trials: at least 1, got {self.trials}")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise InputError(
                f"max_concurrent: at least 1, got {self.max_concurrent}; leave it out for as many "
                "as fit the cluster"
            )
        if self.name is not None and (not _NAME.fullmatch(self.name) or ".." in self.name):
            raise InputError(
                f"name {self.name!r}: lower-case letters, digits, '_', '-' and '.', at most 128, "
                "starting with a letter or digit, never '..'"
            )


def read_plan(store: Store, name: str) -> SearchPlan:
    """The plan that a search directory was last run with, to go on with under a name.

    What a file of an older version lacks is the plan's default.
    """
    document = store.read_json(RESULT)
    return SearchPlan(
        int(document["total"]),
        name=name,
        max_concurrent=document.get("max_concurrent"),
        prune=document.get("scheduler", "ASHA") is not None,
    )
