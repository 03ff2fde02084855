"""The Debian graph: parsing of control text and the build."""

import io
import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from twotower.core.errors import DataError
from twotower.datasets import debian
from twotower.datasets.debian import (
    Edge,
    build_debian,
    build_edges,
)
from twotower.datasets.debian_control import read_stanzas, relation_targets, synopsis
from twotower.datasets.debian_items import (
    MIN_HOST_SOURCES,
    common_hosts,
    item_table,
    maintainer_ids,
    name_words,
    split_tags,
    summary_words,
)

DUMP = """\
Package: editor
Source: editor-src (1.2)
Maintainer: Jo Writer <jo@example.org>
Architecture: amd64
Depends: libtext:any (>= 1), libtext (<< 2), mail-agent | mailer [amd64],
 fonts
Pre-Depends: base (>= 1.15~)
Recommends: fonts | editor
Suggests: mailer
Description: small editor
 A long text, which is not kept.
 .
 Depends: this-is-no-field
Homepage: https://www.example.org/editor
Tag: use::editing, role::program,
 interface::text
Section: editors
Filename: pool/e.deb

Package: libtext
Filename: pool/l.deb

Package: mailer
Provides: mail-agent
Filename: pool/m.deb

Package: fonts
Filename: pool/f.deb
Suggests: editor

Package: base
Filename: pool/b.deb

Package: local-only
Depends: base
"""


def stanzas(text: str) -> list[dict[str, str]]:
    return list(read_stanzas(io.StringIO(text)))


def test_continuation_lines_join_their_field():
    editor = stanzas(DUMP)[0]
    assert editor["Depends"].endswith("mailer [amd64],\nfonts")
    assert editor["Description"].count("\n") == 3
    assert synopsis(editor) == "small editor"
    assert "Depends: this-is-no-field" in editor["Description"]


def test_stanzas_need_no_blank_line_at_the_end_and_may_have_many_between():
    assert stanzas("Package: a\n\n\n\nPackage: b") == [{"Package": "a"}, {"Package": "b"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Package: a\nno field here\n", "line 2"),
        (" continues nothing\n", "line 1"),
        ("Version: 1\n\n", "no Package field"),
        ("Package: a\n\nVersion: 1", "at the end has no Package"),
    ],
)
def test_text_that_is_no_control_text_is_refused(text: str, message: str):
    with pytest.raises(DataError, match=message):
        stanzas(text)


def test_qualifiers_are_cut_off_and_alternatives_share_a_position():
    found = [(t.name, t.position) for t in relation_targets(stanzas(DUMP)[0], "depends")]
    assert found == [
        ("libtext", 0),
        ("libtext", 1),
        ("mail-agent", 2),
        ("mailer", 2),
        ("fonts", 3),
        ("base", 4),  # Pre-Depends is numbered on
    ]


def test_a_package_without_relations_has_no_targets():
    assert list(relation_targets({"Package": "a"}, "suggests")) == []


def test_edges_drop_virtual_packages_repeats_and_self_links():
    dropped: Counter[str] = Counter()
    edges = build_edges([s for s in stanzas(DUMP) if "Filename" in s], dropped)
    assert edges == [
        Edge("editor", "libtext", "depends", 0),
        Edge("editor", "mailer", "depends", 2),
        Edge("editor", "fonts", "depends", 3),
        Edge("editor", "base", "depends", 4),
        Edge("editor", "fonts", "recommends", 0),
        Edge("editor", "mailer", "suggests", 0),
        Edge("fonts", "editor", "suggests", 0),
    ]
    assert dropped == {"virtual": 1, "repeats": 1, "self_links": 1}


def test_missing_fields_are_null_or_empty():
    rows = {row["item_id"]: row for row in item_table(stanzas(DUMP)).to_pylist()}
    bare = rows["libtext"]
    assert bare["source"] == "libtext"
    assert bare["section"] is bare["architecture"] is bare["homepage_host"] is None
    assert bare["tags"] == bare["summary_words"] == []
    assert rows["editor"]["source"] == "editor-src"
    assert rows["editor"]["tags"] == ["interface::text", "role::program", "use::editing"]


def test_maintainers_are_numbered_by_packages_and_folded_by_address():
    names = [
        "Ann Lee <A@x.org>",
        "Bob <b@x.org>",
        "A. Lee <a@x.org>",
        "Bob <b@x.org>",
        "B <b@x.org>",
    ]
    assert maintainer_ids(names) == ["m0002", "m0001", "m0002", "m0001", "m0001"]


def test_ties_of_maintainers_are_not_in_alphabetical_order():
    names = [f"<{letter}@x.org>" for letter in "abcdefgh"]
    assert maintainer_ids(names) != sorted(maintainer_ids(names))


def test_hosts_of_few_projects_become_other():
    common = [f"https://user{n}.github.io/x" for n in range(MIN_HOST_SOURCES)]
    homepages = [*common, "http://www.annlee.example", None, "http://[broken"]
    hosts = common_hosts(homepages, [str(n) for n in range(len(homepages))])
    assert hosts == ["github.io"] * MIN_HOST_SOURCES + ["other", None, "other"]


def test_a_host_of_many_packages_of_one_project_is_still_other():
    assert set(common_hosts(["http://one.example"] * 50, ["one"] * 50)) == {"other"}


def test_names_are_split_into_letters_and_digits():
    assert name_words("libstdc++6-4.6-dev") == ["libstdc", "6", "4", "dev"]
    assert split_tags(" b::c, a::b,\na::b, ") == ["a::b", "b::c"]


def test_summary_words_keep_shared_words_and_drop_names_and_addresses():
    synopses = [
        "C++ editor by Ann Lee, ann@example.org",
        "the C++ EDITOR of Ann",
        "unshared real-time editor",
        "real-time editor",
    ]
    assert summary_words(synopses, ["a", "b", "c", "c"]) == [
        ["c++", "editor"],
        ["c++", "editor"],
        ["editor"],
        ["editor"],
    ]


def test_build_writes_shards_and_catalogue_with_equal_bytes_for_any_stanza_order(tmp_path: Path):
    counts = build_debian(io.StringIO(DUMP), tmp_path / "one")
    reordered = "\n\n".join(reversed(DUMP.strip().split("\n\n")))
    assert build_debian(io.StringIO(reordered), tmp_path / "two") == counts
    assert (counts.items, counts.edges, counts.queries, counts.targets) == (5, 7, 2, 5)
    assert counts.dropped_packages == 1  # only installed, in no archive
    one, two = (
        {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.parquet")}
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    assert sorted(one) == [*(f"interactions/part-0{n}.parquet" for n in range(4)), "items.parquet"]
    log = pl.read_parquet(tmp_path / "one" / "interactions")
    assert log.height == 7
    assert pl.read_parquet(tmp_path / "one" / "items.parquet")["item_id"].is_sorted()


def test_the_first_of_repeated_packages_counts(tmp_path: Path):
    text = "Package: a\nFilename: x\nSection: first\n\nPackage: a\nFilename: y\nSection: second\n"
    assert build_debian(io.StringIO(text), tmp_path).dropped_packages == 1
    assert pl.read_parquet(tmp_path / "items.parquet")["section"].to_list() == ["first"]


def test_a_dump_without_packages_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="apt-get update"):
        build_debian(io.StringIO("\n"), tmp_path)


def test_command_reads_a_file_or_stdin_and_prints_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    dump = tmp_path / "dump"
    dump.write_text(DUMP, encoding="utf-8")
    assert debian.main(["--dump", str(dump), "--out", str(tmp_path / "file")]) == 0
    from_file = json.loads(capsys.readouterr().out)
    monkeypatch.setattr("sys.stdin", io.StringIO(DUMP))
    assert debian.main(["--dump", "-", "--out", str(tmp_path / "stdin")]) == 0
    assert json.loads(capsys.readouterr().out) == from_file
    assert from_file["edges_by_relation"] == {"depends": 4, "recommends": 1, "suggests": 2}


@pytest.mark.parametrize("content", [None, b"\x1f\x8b\xff\x00 packed\n"])
def test_command_ends_with_2_on_a_bad_dump(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
):
    dump = tmp_path / "dump"
    if content is not None:
        dump.write_bytes(content)
    assert debian.main(["--dump", str(dump), "--out", str(tmp_path / "out")]) == 2
    assert "dump" in capsys.readouterr().err
