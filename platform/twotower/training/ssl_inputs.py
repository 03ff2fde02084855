"""What the item tower reads for the contrastive task, by the cheapest way that gives it.

Shape letters:
    N entries of the SSL items
"""

from dataclasses import dataclass

from torch import Tensor

from twotower.core.types import Int64
from twotower.models.features import Entries, SideInputs, SideTable
from twotower.models.towers import PairedViews
from twotower.objectives.masking import Draws, value_dropout
from twotower.objectives.plan import Plan, SSLPass


@dataclass(frozen=True, slots=True)
class SSLInputs:
    """The two views of the SSL items."""

    table: SideTable
    items: Int64
    entries: Entries | None
    """Values of the items; None = not gathered, the views repeat the main pass."""

    hidden: tuple[Tensor, Tensor] | tuple[None, None]
    dropped: tuple[Tensor, Tensor] | tuple[None, None]
    paired: PairedViews | None
    """Both views together; None = as two passes."""

    def views(self) -> list[SideInputs]:
        """The two views, each a pass by itself."""
        entries = self.table.expand(self.items) if self.entries is None else self.entries
        both = zip(self.hidden, self.dropped, strict=True)
        return [self.table.inputs(entries, hidden, dropped) for hidden, dropped in both]


def ssl_inputs(
    table: SideTable, plan: Plan, main: SideInputs, dropout_rate: float
) -> SSLInputs | None:
    """Gather the features of the SSL items, and draw the values that each view drops.

    Args:
        table: the item side.
        plan: the step's.
        main: what the main pass reads.
        dropout_rate: probability of dropping a value.
    """
    ssl = plan.ssl
    if ssl is None:
        return None
    hidden = ssl.views.hidden if ssl.views else (None, None)
    if ssl.views and ssl.places is not None:
        repeats = table.repeats(main, ssl.places, ssl.views.hidden[0])
        return SSLInputs(table, ssl.items, None, hidden, (None, None), repeats)
    entries = table.expand(ssl.items)
    dropped = _dropped(table, entries, ssl, plan.draws, dropout_rate) if dropout_rate > 0 else None
    paired = None
    if ssl.views and ssl.views.patterns is not None:
        paired = table.shared_views(entries, ssl.views.patterns, ssl.views.rows, dropped)
    return SSLInputs(table, ssl.items, entries, hidden, dropped or (None, None), paired)


def _dropped(
    table: SideTable, entries: Entries, ssl: SSLPass, draws: Draws, rate: float
) -> tuple[Tensor, Tensor]:
    slot_N, droppable_N = table.slots(entries)
    position_N = ssl.position.index_select(0, entries.row)
    first_N, second_N = value_dropout(draws, position_N, slot_N, table.max_entries, rate)
    return first_N & droppable_N, second_N & droppable_N
