"""A first config for a user's own tables: YAML text with a comment for each guess."""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from twotower.core.data_config import Data
from twotower.data.raw_columns import ColumnProfile, sql_name
from twotower.data.raw_profile import DataProfile, TableProfile
from twotower.data.raw_roles import SAME_OVERLAP
from twotower.data.raw_warnings import MIN_DIRECTED_PAIRS, REVERSE_SHARE, SIBLING_EXCESS
from twotower.data.shards import SUFFIXES

POSITIVE_SHARE = 0.7
"""Share of a rating's range from which it is suggested to count. Chosen, not tuned."""

GOAL_STEPS = 3000
"""Steps that a guessed number of epochs comes near to. Chosen, not tuned."""

_GENERIC = {"interactions", "log", "logs", "data", "events", "ratings", "clicks", "train", "part"}
_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_./-]*")
_NOT_TEXT = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


def guess_config(profile: DataProfile, name: str | None = None) -> str:
    """Write a config that `twotower train` runs, as commented YAML.

    Args:
        profile: of `raw_profile.profile`.
        name: name of the experiment; None makes one of the log's path.
    """
    lines = [
        "# Written by `twotower init` from the columns and values of the files. Each guess says",
        "# what it rests on; `twotower config schema` lists every other key.",
        f"name: {_scalar(name or guess_name(profile.log.path))}",
        "",
        "data:",
        *_indent(_sources(profile)),
        "  features:",
        "    item:",
        *_indent(_item_features(profile), 3),
        "    query:",
        *_indent(_query_features(profile), 3),
        *_indent(_split(profile)),
        *_indent(_rows(profile)),
        "",
        *_model(profile),
        *_train(profile),
    ]
    return "\n".join(lines) + "\n"


def guess_name(path: str) -> str:
    """A name for an experiment: the log's file name, or its folder's where that says nothing."""
    parts = [part for part in Path(path).absolute().parts if not set(part) & set("*?[")]
    ends = "|".join(map(re.escape, sorted(SUFFIXES, key=len, reverse=True)))
    stems = [_slug(re.sub(f"({ends})$", "", part.lower())) for part in reversed(parts[1:])]
    fit = [stem for stem in stems if stem and re.split(r"[-_.]", stem)[0] not in _GENERIC]
    return re.sub(r"\.+", ".", fit[0])[:64] if fit else "experiment"


def _sources(profile: DataProfile) -> Iterator[str]:
    roles, counts = profile.roles, profile.counts
    yield "interactions:"
    yield from _indent(_table(profile.log))
    yield f"  query: {_scalar(roles.query)}  # {counts.queries:,} queries"
    yield (
        f"  item: {_scalar(roles.item)}  # {roles.item_overlap:.0%} of its values are ids of the "
        "catalogue"
    )
    if roles.time is not None:
        yield f"  time: {_scalar(roles.time)}"
    yield "items:"
    yield from _indent(_table(profile.catalogue))
    yield f"  id: {_scalar(roles.item_id)}  # unique; {counts.items:,} of its items are in a pair"
    if profile.queries is not None and roles.query_id is not None:
        yield "queries:"
        yield from _indent(_table(profile.queries))
        yield f"  id: {_scalar(roles.query_id)}"
    elif roles.queries_are_items:
        yield f"# {roles.query_overlap:.0%} of the query ids are in the catalogue. Where they only"
        yield "# happen to be the same numbers, change this to null, name other query features and"
        yield "# take model.tower_init out."
        yield "queries: items"
    else:
        if roles.query_overlap >= SAME_OVERLAP:
            yield f"# {roles.query_overlap:.0%} of the query ids are in the catalogue, it seems by"
            yield "# chance. Where queries are items, set this to items and let their features read"
            yield "# the catalogue."
        yield "queries: null  # no table of query features was given"


def _table(table: TableProfile) -> Iterator[str]:
    yield f"path: {_scalar(table.path)}"
    if table.format != "parquet":
        yield f"format: {table.format}"


def _item_features(profile: DataProfile) -> Iterator[str]:
    names = _feature_names(profile.catalogue.columns)
    ids = profile.roles.item_id
    yield _feature(names[ids], ids, "categorical", note="the id itself")
    yield from _columns_of(profile.catalogue.columns, names, ids, share=False)


def _query_features(profile: DataProfile) -> Iterator[str]:
    roles = profile.roles
    names = _feature_names(profile.catalogue.columns)
    ids = names[roles.item_id]
    if roles.queries_are_items:
        note = "queries are items: vocabularies are shared"
        yield _feature(ids, roles.item_id, "categorical", share=ids, note=note)
        yield from _columns_of(profile.catalogue.columns, names, roles.item_id, share=True)
        return
    yield from _own_query_features(profile, ids)


def _own_query_features(profile: DataProfile, ids: str) -> Iterator[str]:
    """Features of queries that are no items: their id, their table's columns, their history."""
    roles = profile.roles
    own = profile.queries.columns if profile.queries is not None else ()
    query_id = roles.query_id or roles.query
    alone = {query_id: _slug(query_id).replace(".", "_") or "query"}
    taken = _feature_names(own) if own else alone
    yield _feature(taken[query_id], query_id, "categorical", note="the id itself")
    yield from _columns_of(own, taken, query_id, share=False)
    history = "history" if "history" not in taken.values() else "own_history"
    shared = _scalar(ids, in_flow=True)
    yield f"{history}: {{kind: history, share: {shared}}}  # the query's other pairs"


def _columns_of(
    columns: Iterable[ColumnProfile], names: dict[str, str], ids: str, share: bool
) -> Iterator[str]:
    """A line for each column but the id: a feature, or a comment that says why it is none."""
    for column in columns:
        if column.name == ids:
            continue
        if column.kind is None:
            if not share:
                yield f"# left out: {_one_line(column.name)} ({column.reason})"
            continue
        name = names[column.name]
        shared = name if share and column.kind != "dense" else None
        note = "" if share else column.reason
        yield _feature(name, column.name, column.kind, share=shared, note=note)


def _feature(name: str, column: str, kind: str, share: str | None = None, note: str = "") -> str:
    parts = [f"kind: {kind}"]
    if column != name:
        parts.append(f"column: {_scalar(column, in_flow=True)}")
    if share is not None:
        parts.append(f"share: {_scalar(share, in_flow=True)}")
    return f"{_scalar(name)}: {{{', '.join(parts)}}}" + (f"  # {note}" if note else "")


def _split(profile: DataProfile) -> Iterator[str]:
    counts, roles = profile.counts, profile.roles
    yield "split:"
    if roles.time is not None:
        yield "  # The newest tenth of the pairs is test, the tenth before it validation."
        yield "  kind: time"
    else:
        yield "  kind: random  # no column of the log is a time that prepare reads"
    leak = next(iter(profile.siblings), None)
    if leak is not None and leak.excess >= SIBLING_EXCESS:
        yield f"  # {leak.share:.0%} of the pairs have a sibling query that links the same item; to"
        yield "  # keep siblings on one side:"
        yield "  # kind: by_group"
        yield f"  # column: {_scalar(leak.column)}"
    elif counts.reverse_pairs >= REVERSE_SHARE * counts.pairs:
        yield f"  # {counts.reverse_pairs:,} pairs stand in both directions; to keep both together:"
        yield "  # kind: by_group"
        yield f"  # column: {_scalar(roles.item_id)}"


def _rows(profile: DataProfile) -> Iterator[str]:
    counts, roles, rating = profile.counts, profile.roles, profile.rating
    if rating is not None:
        bound = math.ceil(rating.low + POSITIVE_SHARE * (rating.high - rating.low))
        span = f"{rating.low:g} to {rating.high:g}"
        yield f"# {_one_line(rating.column)} goes from {span}; to count good ones only:"
        yield f"# positive: {_scalar(f'{sql_name(rating.column)} >= {bound}')}"
    is_one_way = counts.reverse_pairs == 0 and counts.pairs >= MIN_DIRECTED_PAIRS
    if roles.queries_are_items and is_one_way:
        yield "# No pair stands in both directions; where an edge means the same both ways:"
        yield "# undirected: true"
    lost = counts.null_queries + counts.null_items + counts.missing_item_rows
    # Unknown queries are kept where they are items, but their rows are no usable ones.
    dropped = (min(lost, counts.dropped_rows) + counts.null_times) / counts.rows
    if dropped > Data.model_fields["max_dropped_share"].default:
        allowed = min(math.ceil(dropped * 1000 + 1) / 1000, 1.0)
        yield f"max_dropped_share: {allowed:g}  # {dropped:.2%} of the rows can't be used"


def _model(profile: DataProfile) -> Iterator[str]:
    """What found the most in docs/benchmarks/best, at no cost a step."""
    if profile.roles.queries_are_items:
        yield "model:"
        yield "  tower_init: aligned  # queries are items: those with common values begin close"
        yield ""
    yield "loss:"
    yield "  # Corrects that popular items are negatives more often: finds more in all, and less of"
    yield "  # the tail. Where the tail is what counts: none."
    yield "  logq: counted"
    yield ""


def _train(profile: DataProfile) -> Iterator[str]:
    batch_size, num_epochs = guess_sizes(profile.counts.pairs)
    yield "train:"
    yield f"  batch_size: {batch_size}  # of {profile.counts.pairs:,} distinct pairs in all"
    yield f"  num_epochs: {num_epochs}"
    yield "  patience: 3  # validations without a better recall before it stops"


def guess_sizes(pairs: int) -> tuple[int, int]:
    """Global batch size (a power of two, a multiple of the default lanes) and epochs for a log.

    About fifty batches an epoch, between 128 and 8192 rows each. Chosen, not tuned.
    """
    batch_size = 1 << min(max(int(math.log2(max(pairs / 50, 1))), 7), 13)
    steps = max(pairs / batch_size, 1)
    return batch_size, min(max(round(GOAL_STEPS / steps), 3), 20)


def _feature_names(columns: Iterable[ColumnProfile]) -> dict[str, str]:
    """Names of features by column: names become paths and dotted keys, so they are plain."""
    names: dict[str, str] = {}
    for place, column in enumerate(columns):
        name = _slug(column.name).replace(".", "_") or f"column_{place}"
        while name in names.values():
            name += "_"
        names[column.name] = name
    return names


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-")


def _scalar(text: str, in_flow: bool = False) -> str:
    """Text as YAML: plain where that is safe, in double quotes otherwise."""
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT
    if is_plain and not (in_flow and text[0] == "."):
        return text
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf).strip()


def _one_line(text: str) -> str:
    """Text for a comment: no line breaks, and nothing that YAML refuses."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _indent(lines: Iterable[str], levels: int = 1) -> Iterator[str]:
    return ("  " * levels + line for line in lines)
