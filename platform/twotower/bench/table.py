"""One Markdown table of several `summary.json`: `python -m twotower.bench.table SUMMARY...`."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

COLUMNS = ("recall@10", "recall@50", "map@10", "map@50", "tail_recall@50")


def table(summaries: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table: a row a data set and method, value and interval a metric."""
    yield f"| data | method | {' | '.join(COLUMNS)} |"
    yield f"| --- | --- |{' --- |' * len(COLUMNS)}"
    for data, summary in summaries.items():
        for method, found in summary["methods"].items():
            cells = [_cell(found.get(column)) for column in COLUMNS]
            yield f"| {data} | {method} | {' | '.join(cells)} |"


def _cell(interval: Mapping[str, Any] | None) -> str:
    if not interval or interval["value"] is None:
        return "-"
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def main(paths: Iterable[str]) -> None:
    """Print the table of the given files."""
    named = {Path(p).parent.name.removeprefix("demo-"): Path(p).read_text("utf-8") for p in paths}
    lines = table({name: json.loads(text) for name, text in named.items()})
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
