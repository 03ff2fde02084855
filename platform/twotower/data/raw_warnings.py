"""What a user should know of raw data before training on it: each with its figure and its mend."""

from collections.abc import Iterator

from twotower.data.raw_columns import sql_name
from twotower.data.raw_profile import Counts, DataProfile

# From which share on a fact is worth a sentence. All chosen, not tuned.
REVERSE_SHARE = 0.01
BOTH_DIRECTIONS = 0.95
SIBLING_EXCESS = 0.05
ONE_ROW_SHARE = 0.1
NEVER_SHARE = 0.1
HEAD_SHARE = 0.3
MISSING_SHARE = 0.3
MIN_DIRECTED_PAIRS = 1000
"""Pairs below which a graph without reverse pairs says nothing."""

TRAIN_SHARE = 0.8
"""Share of pairs that the default split leaves to train."""


def warnings(profile: DataProfile) -> list[str]:
    """One sentence for each fact that would hurt, worst first; empty where all is well."""
    return [
        *_bad_rows(profile),
        *_directions(profile),
        *_siblings(profile),
        *_repeats(profile.counts),
        *_popularity(profile.counts, profile),
        *_features(profile),
    ]


def _bad_rows(profile: DataProfile) -> Iterator[str]:
    counts, roles = profile.counts, profile.roles
    for column, nulls in ((roles.query, counts.null_queries), (roles.item, counts.null_items)):
        if nulls:
            yield (
                f"{_of(nulls, counts.rows)} rows have no {column}: fill them, or let prepare drop "
                "them (data.max_dropped_share)."
            )
    if counts.missing_item_rows:
        yield (
            f"{_of(counts.missing_item_rows, counts.rows)} rows have {roles.item} values that the "
            f"catalogue lacks ({counts.missing_items:,} ids): add the items, or let prepare drop "
            "the rows (data.max_dropped_share)."
        )
    if counts.missing_query_rows:
        yield (
            f"{_of(counts.missing_query_rows, counts.rows)} rows have {roles.query} values that "
            "the catalogue lacks: prepare keeps them, but such queries have no features; add them "
            "to the catalogue."
        )
    if counts.null_times:
        yield (
            f"{_of(counts.null_times, counts.rows)} rows have no {roles.time}: fill them, or take "
            "data.interactions.time out and split at random."
        )
    if counts.queries_without_features:
        yield (
            f"{_of(counts.queries_without_features, counts.queries)} queries are not in the query "
            "table: their features are default embeddings, so keep the id or a history beside them."
        )


def _directions(profile: DataProfile) -> Iterator[str]:
    counts, roles = profile.counts, profile.roles
    if not roles.queries_are_items:
        return
    share = counts.reverse_pairs / counts.pairs
    if counts.self_links:
        yield (
            f"{_of(counts.self_links, counts.pairs)} pairs link a thing to itself: prepare drops "
            "them, since a query is never its own candidate."
        )
    if share >= BOTH_DIRECTIONS:
        one_of_each = f"{sql_name(roles.query)} < {sql_name(roles.item)}"
        yield (
            f"{_of(counts.reverse_pairs, counts.pairs)} pairs stand in both directions, so a split "
            f"by pair leaks: keep one of each with data.positive: {one_of_each} "
            "and set data.undirected: true."
        )
    elif share >= REVERSE_SHARE:
        yield (
            f"{_of(counts.reverse_pairs, counts.pairs)} pairs stand in both directions, so a "
            f"random split puts the reverse of about {share * TRAIN_SHARE:.0%} of the test pairs "
            f"into train: data.split {{kind: by_group, column: {roles.item_id}}} keeps both on one "
            "side."
        )
    elif counts.reverse_pairs == 0 and counts.pairs >= MIN_DIRECTED_PAIRS:
        yield (
            f"None of the {counts.pairs:,} pairs stands in both directions: where an edge means "
            "the same both ways, set data.undirected: true."
        )


def _siblings(profile: DataProfile) -> Iterator[str]:
    for leak in profile.siblings[:1]:
        if leak.excess >= SIBLING_EXCESS:
            yield (
                f"{leak.share:.0%} of the pairs have a sibling query with the same {leak.column} "
                f"that links the same item ({leak.expected:.0%} by chance), which a random split "
                f"gives away: data.split {{kind: by_group, column: {leak.column}}} keeps siblings "
                "on one side."
            )


def _repeats(counts: Counts) -> Iterator[str]:
    if counts.repeated_rows:
        yield (
            f"{_of(counts.repeated_rows, counts.usable_rows)} rows repeat an earlier pair: prepare "
            "merges them before the split, and the count becomes the pair's weight."
        )


def _popularity(counts: Counts, profile: DataProfile) -> Iterator[str]:
    if counts.one_row_queries >= ONE_ROW_SHARE * counts.queries:
        yield (
            f"{_of(counts.one_row_queries, counts.queries)} queries have a single pair, so none of "
            "them is known at test: give queries features beside the id, and read recall with "
            "that in mind."
        )
    never = counts.catalogue_items - counts.items
    if never >= NEVER_SHARE * counts.catalogue_items:
        yield (
            f"{_of(never, counts.catalogue_items)} catalogue items are in no pair: only features "
            "beside the id can place them; take them out of the catalogue if they can't be shown."
        )
    head = profile.degrees.top_1pct_share
    if head >= HEAD_SHARE:
        yield (
            f"The most popular 1 % of the items have {head:.0%} of the pairs: keep loss.logq: "
            "counted, and read the tail metrics."
        )


def _features(profile: DataProfile) -> Iterator[str]:
    tables = [profile.catalogue] + ([profile.queries] if profile.queries else [])
    for table in tables:
        for column in table.columns:
            if column.kind is not None and column.missing >= MISSING_SHARE * table.rows:
                yield (
                    f"{_of(column.missing, table.rows)} rows of {table.path} have no "
                    f"{column.name}: its default embedding stands in; fill it or leave it out."
                )
    ids = profile.roles.item_id
    if not any(c.kind is not None and c.name != ids for c in profile.catalogue.columns):
        yield (
            f"None of the {len(profile.catalogue.columns)} columns of the catalogue makes a "
            "feature beside the id: ssl.weight above 0 needs at least two."
        )


def _of(part: int, whole: int) -> str:
    share = part / whole
    shown = f"{share:.1%}" if share >= 0.001 else "under 0.1%"
    return f"{part:,} of {whole:,} ({shown})"
