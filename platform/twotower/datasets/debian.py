"""The Debian 12 package graph: the bundled data set, and the command that builds it.

A package (the query) depends on, recommends or suggests others (the items). The built files lie
in the folder ``debian`` beside this module; its README says how they were made. Rebuild with::

    python -m twotower.datasets.debian --out DIR             # from this machine's package lists
    python -m twotower.datasets.debian --dump FILE --out DIR    # from a saved dump, - is stdin
"""

import argparse
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from twotower.core.errors import DataError
from twotower.datasets.debian_control import RELATION_FIELDS, read_stanzas, relation_targets
from twotower.datasets.debian_items import item_table

NUM_SHARDS = 4

INTERACTION_SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("item_id", pa.string()),
        ("relation", pa.string()),
        ("position", pa.int32()),
    ]
)

# Without the status file apt lists archives only: what is installed here can't change the graph.
_DUMP_COMMAND = ("apt-cache", "-o", "Dir::State::status=/dev/null", "dumpavail")


class DebianFiles(NamedTuple):
    """Where the bundled data set lies."""

    interactions: Path
    """Folder of Parquet shards with columns `INTERACTION_SCHEMA`."""
    items: Path
    """Parquet catalogue, one row a package; packages are queries and items alike."""


class Edge(NamedTuple):
    """One row of the interaction log, in the order of `INTERACTION_SCHEMA`."""

    query_id: str
    item_id: str
    relation: str
    position: int


@dataclass(frozen=True, slots=True)
class DebianCounts:
    """What a build kept and what it dropped."""

    items: int
    edges: int
    edges_by_relation: dict[str, int]
    queries: int
    targets: int
    dropped_virtual: int
    """Targets that name no package of the catalogue: virtual packages and other suites."""
    dropped_repeats: int
    """A target named again in the same relation of the same package, often with another version."""
    dropped_self_links: int
    dropped_packages: int
    """Stanzas of a package seen before (another architecture), or with no file in an archive."""


def debian_files() -> DebianFiles:
    """Locate the bundled data set.

    Raises:
        DataError: the files are not there (a package built without its data files).
    """
    root = Path(__file__).parent / "debian"
    found = DebianFiles(root / "interactions", root / "items.parquet")
    if not (found.interactions.is_dir() and found.items.is_file()):
        raise DataError(f"{root}: the bundled Debian data is missing: install the package again")
    return found


def build_edges(
    packages: Sequence[dict[str, str]], dropped: Counter[str] | None = None
) -> list[Edge]:
    """List the distinct (query, item, relation) edges among ``packages``, sorted.

    Every alternative of ``a | b`` is an edge, with the same position. A target named twice in one
    relation keeps its first position. Order: query, relation, position, item.

    Args:
        packages: records of `read_stanzas`, names distinct.
        dropped: is added to, under ``virtual``, ``repeats`` and ``self_links``.
    """
    dropped = Counter() if dropped is None else dropped
    catalogue = {package["Package"] for package in packages}
    edges: list[Edge] = []
    for package in packages:
        query = package["Package"]
        for relation in RELATION_FIELDS:
            first_position: dict[str, int] = {}
            for target in relation_targets(package, relation):
                if target.name not in catalogue:
                    dropped["virtual"] += 1
                elif target.name == query:
                    dropped["self_links"] += 1
                elif target.name in first_position:
                    dropped["repeats"] += 1
                else:
                    first_position[target.name] = target.position
            edges += [Edge(query, item, relation, at) for item, at in first_position.items()]
    return sorted(edges, key=lambda e: (e.query_id, e.relation, e.position, e.item_id))


def build_debian(lines: Iterable[str], out: Path) -> DebianCounts:
    """Build the graph and write ``interactions/part-NN.parquet`` and ``items.parquet``.

    The bytes depend on the text and the pyarrow version alone, not on the order of stanzas unless
    a package is repeated (the first one counts).

    Args:
        lines: control text, as of ``apt-cache dumpavail``.
        out: folder, made if missing; files of the same names are replaced.

    Raises:
        DataError: the text is no control text, or holds no package.
    """
    dropped: Counter[str] = Counter()
    packages = _archive_packages(lines, dropped)
    edges = build_edges(packages, dropped)
    (out / "interactions").mkdir(parents=True, exist_ok=True)
    for shard in range(NUM_SHARDS):
        part = edges[shard * len(edges) // NUM_SHARDS : (shard + 1) * len(edges) // NUM_SHARDS]
        rows = pa.Table.from_pylist([edge._asdict() for edge in part], schema=INTERACTION_SCHEMA)
        _write(rows, out / "interactions" / f"part-{shard:02d}.parquet", delta="query_id")
    _write(item_table(packages), out / "items.parquet", delta="item_id")
    return DebianCounts(
        items=len(packages),
        edges=len(edges),
        edges_by_relation=dict(sorted(Counter(edge.relation for edge in edges).items())),
        queries=len({edge.query_id for edge in edges}),
        targets=len({edge.item_id for edge in edges}),
        dropped_virtual=dropped["virtual"],
        dropped_repeats=dropped["repeats"],
        dropped_self_links=dropped["self_links"],
        dropped_packages=dropped["packages"],
    )


def _archive_packages(lines: Iterable[str], dropped: Counter[str]) -> list[dict[str, str]]:
    """Return distinct packages by name; a stanza with no archive file is only installed here."""
    by_name: dict[str, dict[str, str]] = {}
    for stanza in read_stanzas(lines):
        if "Filename" not in stanza or stanza["Package"] in by_name:
            dropped["packages"] += 1
        else:
            by_name[stanza["Package"]] = stanza
    if not by_name:
        raise DataError("package dump: no package with a Filename in it; run apt-get update first")
    return [by_name[name] for name in sorted(by_name)]


def _write(table: pa.Table, path: Path, *, delta: str) -> None:
    """Write one small file: one row group, no statistics, zstd; ``delta`` is its sorted column."""
    leaves = [
        f.name + ".list.element" if pa.types.is_list(f.type) else f.name for f in table.schema
    ]
    partial = path.with_name(path.name + ".partial")
    pq.write_table(
        table,
        partial,
        compression="zstd",
        compression_level=22,
        # pyarrow documents a list of columns here; the type is guessed from the default, True.
        use_dictionary=[leaf for leaf in leaves if leaf != delta],  # pyright: ignore[reportArgumentType]
        column_encoding={delta: "DELTA_BYTE_ARRAY"},
        write_statistics=False,
        store_schema=False,
        row_group_size=max(len(table), 1),
        data_page_size=1 << 26,
        dictionary_pagesize_limit=1 << 26,  # bytes; the default falls back to plain strings
    )
    partial.replace(path)


def _read_dump(dump: str | None, out: Path) -> DebianCounts:
    """Build from a dump: a file, ``-`` for stdin, or None for this machine's package lists."""
    if dump == "-":
        return build_debian(sys.stdin, out)
    if dump is not None:
        try:
            # A wrong byte (a packed dump, say) must end as a DataError of the reader.
            file = Path(dump).open(encoding="utf-8", errors="replace")  # noqa: SIM115 - used below
        except OSError as error:
            raise DataError(f"{dump}: {error.strerror}") from error
        with file:
            return build_debian(file, out)
    try:
        listing = subprocess.run(
            _DUMP_COMMAND, stdout=subprocess.PIPE, encoding="utf-8", check=True
        )
    except FileNotFoundError as error:
        raise DataError("apt-cache is not on this machine: give --dump FILE") from error
    except subprocess.CalledProcessError as error:
        raise DataError(f"{' '.join(_DUMP_COMMAND)} ended with {error.returncode}") from error
    return build_debian(io.StringIO(listing.stdout), out)


def main(argv: Sequence[str] | None = None) -> int:
    """Build the graph and print its counts as JSON; returns the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m twotower.datasets.debian")
    parser.add_argument("--dump", help="file of apt-cache dumpavail, - for stdin; else it is run")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    options = parser.parse_args(argv)
    try:
        counts = _read_dump(options.dump, options.out)
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(asdict(counts), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
