"""Which columns of a user's own tables hold the query, the item, the time and a rating.

Decided by names and by values: the item column is the one whose values are ids of the catalogue.
"""

from dataclasses import dataclass

import polars as pl

from twotower.core.errors import DataError
from twotower.data.raw_columns import TIME_WORDS, is_id_type, words_of
from twotower.data.raw_tables import SAMPLE_ROWS, RawTable, reading
from twotower.data.schema import family
from twotower.data.shards import list_shards
from twotower.data.sources import inspect

ITEM_WORDS = frozenset(
    {"item", "product", "movie", "book", "track", "song", "article", "app", "target", "dst", "to"}
)
PERSON_WORDS = frozenset(
    {"user", "customer", "household", "member", "visitor", "session", "account", "reader", "uid"}
)
QUERY_WORDS = PERSON_WORDS | {"query", "source", "src", "from", "context", "search", "subject"}
RATING_WORDS = frozenset({"rating", "ratings", "stars", "score", "rate"})
AMOUNT_WORDS = frozenset(
    {"quantity", "qty", "count", "counts", "amount", "price", "cost", "total", "weight", "value"}
    | {"plays", "playcount", "views", "clicks", "rank", "position", "duration", "age"}
)
MEASURE_WORDS = RATING_WORDS | AMOUNT_WORDS | TIME_WORDS
"""Of columns that say something about a pair, and name neither of its ends."""

MIN_OVERLAP = 0.5
"""Share of a column's values that must be ids of the catalogue. Chosen, not tuned."""

SAME_OVERLAP = 0.9
"""Share of query ids in the catalogue from which queries are taken for items. Chosen, not tuned."""

MIN_COVER = 0.1
"""Share of the catalogue that numbers must then cover: 1 to 5 are ids of most catalogues of such.
Chosen, not tuned: the bundled graph has 0.90, its suggestions alone 0.16."""

OLDEST_UNIX_TIME = 100_000_000
"""Whole numbers below it (March 1973 in seconds) are no timestamps."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The columns that matter, and how sure the guess is."""

    query: str
    item: str
    time: str | None
    rating: str | None
    item_id: str
    """Id column of the catalogue."""
    query_id: str | None
    """Id column of the query table; None where there is none."""
    queries_are_items: bool
    item_overlap: float
    """Share of the item column's distinct sampled values that are ids of the catalogue."""
    query_overlap: float
    """The same of the query column."""


def guess_roles(log: RawTable, catalogue: RawTable, queries: RawTable | None) -> Roles:
    """Guess the columns of a log, its catalogue and its query table.

    Raises:
        DataError: the catalogue has no column of unique ids, no column of the log holds them, or
            nothing is left for the queries; the message names tables and columns.
    """
    with reading(log.path):
        sample = log.frame.head(SAMPLE_ROWS).collect()
    time = _guess_time(log, sample)
    names = [n for n in sample.columns if is_id_type(sample.schema[n]) and n != time]
    values = {name: _distinct(sample[name]) for name in names}
    item, item_id, ids = _guess_item(log, catalogue, values)
    rest = {name: found for name, found in values.items() if name != item}
    if not rest:
        raise DataError(
            f"{log.path}: no column for the query beside {item!r}; its columns are "
            f"{', '.join(log.schema)}, and a query id is text or a whole number"
        )
    hold_items = {name for name, found in rest.items() if _holds_items(log, name, found, ids)}
    query, query_id = _guess_query(rest, queries, hold_items)
    is_person = _says(query, PERSON_WORDS)
    rating = [n for n, t in sample.schema.items() if _measures(n, RATING_WORDS) and t.is_numeric()]
    return Roles(
        query=query,
        item=item,
        time=time,
        rating=rating[0] if rating else None,
        item_id=item_id,
        query_id=query_id,
        queries_are_items=query_id is None and query in hold_items and not is_person,
        item_overlap=_share(values[item], ids),
        query_overlap=_share(values[query], ids),
    )


def _guess_item(
    log: RawTable, catalogue: RawTable, values: dict[str, pl.Series]
) -> tuple[str, str, pl.Series]:
    """Item column of the log, id column of the catalogue, and the ids."""
    found: list[tuple[tuple[float, ...], str, str]] = []
    ids = _unique_columns(catalogue)
    best = (0.0, "", "")
    for item_id, known in ids.items():
        for name, distinct in values.items():
            overlap = _share(distinct, known)
            best = max(best, (overlap, name, item_id))
            if overlap >= MIN_OVERLAP:
                rank = (_item_rank(name, item_id), round(overlap, 1), len(distinct))
                found.append((rank, name, item_id))
    if not found:
        raise DataError(
            f"{log.path}: no column of it holds the ids of {catalogue.path}; nearest is "
            f"{best[1] or 'none'!r}, of whose values {best[0]:.0%} are in {best[2] or 'it'!r} "
            f"(looked at {', '.join(values) or 'no column of text or whole numbers'})"
        )
    _, item, item_id = max(found, key=lambda one: one[0])
    return item, item_id, ids[item_id]


def _item_rank(name: str, item_id: str) -> int:
    """How much a name sounds like the item of a pair."""
    if _measures(name):
        return -1
    if name.lower() == item_id.lower():
        return 3
    if _says(name, ITEM_WORDS):
        return 2
    return 0 if _says(name, QUERY_WORDS) else 1


def _holds_items(log: RawTable, name: str, sampled: pl.Series, items: pl.Series) -> bool:
    """Whether a column's values are items, and not numbers that happen to be ids of some."""
    if _share(sampled, items) < SAME_OVERLAP:
        return False
    if not sampled.str.contains(r"^\d+$").all():
        return True  # words are not the ids of anything else by chance
    # A long log that is sorted by the column shows few of its values in the sample.
    values = sampled if log.rows <= SAMPLE_ROWS else log.distinct(name)["id"]
    return _share(items, values) >= MIN_COVER


def _guess_query(
    values: dict[str, pl.Series], queries: RawTable | None, hold_items: set[str]
) -> tuple[str, str | None]:
    """Query column of the log and id column of the query table."""

    def by_name(name: str) -> tuple[float, ...]:
        return (not _measures(name), _says(name, QUERY_WORDS), name in hold_items)

    if queries is None:
        # The first of equals: logs name the query before what it met.
        return max(values, key=by_name), None
    found: list[tuple[tuple[float, ...], str, str]] = []
    for query_id, known in _unique_columns(queries).items():
        for name, distinct in values.items():
            # A table may know few of the log's queries, or more of them than the sample shows.
            overlap = max(_share(distinct, known), _share(known, distinct))
            if overlap >= MIN_OVERLAP:
                found.append(((*by_name(name), name == query_id, overlap), name, query_id))
    if not found:
        raise DataError(
            f"{queries.path}: none of its columns holds the ids of a column of the log "
            f"(looked at {', '.join(values)})"
        )
    _, query, query_id = max(found, key=lambda one: one[0])
    return query, query_id


def _guess_time(log: RawTable, sample: pl.DataFrame) -> str | None:
    """A column of times: instants, whole numbers named and large like them, or else dates."""
    for name, dtype in sample.schema.items():
        if isinstance(dtype, pl.Datetime) and _prepare_reads_time(log, name):
            return name
    for name, dtype in sample.schema.items():
        largest = sample[name].max() if dtype.is_integer() and _says(name, TIME_WORDS) else None
        if isinstance(largest, int) and largest >= OLDEST_UNIX_TIME:
            return name
    for name, dtype in sample.schema.items():
        if isinstance(dtype, pl.Date) and _prepare_reads_time(log, name):
            return name
    return None


def _prepare_reads_time(log: RawTable, name: str) -> bool:
    """Whether prepare, too, finds times there: in CSV, 13/01/2024 is one to Polars alone."""
    if log.format != "csv":
        return True
    shards = list_shards(log.path, log.format, frozenset(), "log", others=frozenset({name}))
    shard = next((shard for shard in shards if shard.size), shards[0])
    schema = inspect(shard).schema  # without columns where prepare will say what is wrong
    kind = family(schema.field(name).type) if name in schema.names else ""
    return kind.split("[")[0] in ("date", "timestamp")


def _unique_columns(table: RawTable) -> dict[str, pl.Series]:
    """Columns of a table that can be its id, with their values: no nulls and no repeats."""
    names = [name for name, dtype in table.schema.items() if is_id_type(dtype)]
    found: dict[str, pl.Series] = {}
    for name in names:
        ids = table.distinct(name)["id"]
        if len(ids) == table.rows:
            found[name] = ids
    if not found:
        raise DataError(
            f"{table.path}: no column has a different value in every row, so none can be the id "
            f"(looked at {', '.join(names) or 'no column of text or whole numbers'}); remove "
            "repeated rows"
        )
    return found


def _distinct(column: pl.Series) -> pl.Series:
    return column.drop_nulls().cast(pl.String).unique()


def _share(values: pl.Series, known: pl.Series) -> float:
    """Share of distinct values that are known."""
    return float(values.is_in(known.implode()).sum()) / len(values) if len(values) else 0.0


def _says(name: str, words: frozenset[str]) -> bool:
    return bool(set(words_of(name)) & words)


def _measures(name: str, words: frozenset[str] = MEASURE_WORDS) -> bool:
    """Whether a name is about a rating, an amount or a time; `price_id` is an id."""
    return _says(name, words) and words_of(name)[-1] != "id"
