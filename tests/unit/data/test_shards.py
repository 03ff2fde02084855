"""Which files a source has: the same for prepare and for init."""

import gzip
import json
from glob import glob
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twotower.core.errors import DataError
from twotower.data.raw_tables import open_table
from twotower.data.shards import Format, list_shards

FILES = (
    "a.parquet",
    "b.pq",
    "part-0001",
    "y/b.parquet",
    "y/z/c.parquet",
    "y/z/part-0002",
)
HIDDEN = (
    "_delta_log/c.parquet",
    ".ipynb_checkpoints/d.parquet",
    "y/.hidden.parquet",
    "y/_SUCCESS",
)
PATTERNS = (
    "**/*.parquet",
    "**/*",
    "**",
    "*",
    "*.parquet",
    "*/*.parquet",
    "y/**/*.parquet",
    "**/z/*.parquet",
    "**/z/**",
    "y/**/**/c.parquet",
    "[!b]*",
    "?.parquet",
    "y/**/part-*",
)


def tree(folder: Path) -> Path:
    """Parquet files of one row each, seen and hidden."""
    for name in (*FILES, *HIDDEN):
        path = folder / "g" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": [1]}), path)
    return folder / "g"


def listed(path: Path | str, kind: Format | None) -> list[str]:
    return [shard.path for shard in list_shards(str(path), kind, frozenset())]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_globs_name_the_files_that_a_shell_does(tmp_path: Path, pattern: str) -> None:
    root = tree(tmp_path)
    wanted = [
        name
        for name in glob(str(root / pattern), recursive=True)  # noqa: PTH207 - the other reading of `**`
        if Path(name).is_file()
        and not any(part[0] in "._" for part in Path(name).relative_to(root).parts)
    ]
    assert listed(root / pattern, "parquet") == sorted(set(wanted))
    assert listed(root / pattern, None) == sorted(set(wanted))
    assert open_table(str(root / pattern)).rows == len(set(wanted))


def test_a_folder_holds_the_same_files_for_init_and_prepare(tmp_path: Path) -> None:
    root = tree(tmp_path)
    seen = sorted(str(root / name) for name in FILES)
    assert listed(root, "parquet") == seen
    assert listed(root, None) == seen
    assert open_table(str(root)).rows == 6
    assert open_table(root.as_uri()).rows == 6


def test_compressed_lines_are_found_by_both(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for name, rows in (("a.jsonl.gz", 3), ("b.ndjson", 2), ("c.json", 1)):
        data = "".join(json.dumps({"x": n}) + "\n" for n in range(rows)).encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert listed(folder, None) == listed(folder, "jsonl")
    table = open_table(str(folder))
    assert (table.format, table.rows) == ("jsonl", 6)


def test_two_stars_beside_letters_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with pytest.raises(DataError, match=r"k: .*g/\*\*\.parquet: \*\* is a part of its own"):
        list_shards(f"{root}/**.parquet", "parquet", frozenset(), "k")


def test_paths_without_a_shard_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (tmp_path / "only").mkdir()
    (root / "a.parquet").rename(tmp_path / "only" / "a.parquet")
    with pytest.raises(DataError, match=r"k: .*: holds no csv shard; no files .* end with \.csv, "):
        list_shards(str(tmp_path / "only"), "csv", frozenset(), "k")
    with pytest.raises(DataError, match=r"\*\.csv: holds no shard; no file matches"):
        open_table(f"{root}/*.csv")
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        open_table(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nothing://x: can't be opened"):
        open_table("nothing://x")


def test_a_name_with_brackets_is_no_pattern_to_init(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    pq.write_table(pa.table({"x": [1, 2]}), folder / "a[1].parquet")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a[1].csv").write_text("x\n1\n")
    assert open_table(str(folder)).rows == 2
    assert open_table(str(tmp_path / "c")).rows == 1


def test_what_only_looks_like_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("about the data")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"README: not a Parquet file; .* ends with \.csv, "):
        open_table(str(tmp_path))
