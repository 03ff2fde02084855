"""Reads a page back: its tags, its text, its tables; tags must be closed in their order."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Cell:
    """A cell: its own text, the text of its `small` parts, its classes."""

    text: str = ""
    small: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


@dataclass
class Table:
    """A table of a section: rows of cells, the head's rows among them."""

    section: str
    rows: list[list[Cell]] = field(default_factory=list)


class Reader(HTMLParser):
    """Collects tags, attributes, text and tables, and checks that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: list[Table] = []
        self._section = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self._section = attributes.get("id") or ""
        elif tag == "table":
            self.tables.append(Table(self._section))
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in ("th", "td"):
            classes = (attributes.get("class") or "").split()
            self.tables[-1].rows[-1].append(Cell(classes=classes))
        elif tag == "small" and self._in_cell():
            self.tables[-1].rows[-1][-1].small.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] in ("style", "script"):
            return
        self.text.append(data)
        if self._in_cell() and "svg" not in self.open:
            cell = self.tables[-1].rows[-1][-1]
            if "small" in self.open:
                cell.small[-1] += data
            else:
                cell.text += data

    def _in_cell(self) -> bool:
        return "td" in self.open or "th" in self.open


def read(page: str) -> Reader:
    """The page's parts; an assertion fails where it isn't well-formed."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def assert_self_contained(page: str) -> None:
    """Nothing on the page is loaded from anywhere, and no attribute runs code."""
    for tag, attributes in read(page).tags:
        assert tag not in {"link", "img", "iframe", "object", "use", "image"}
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
        assert not [name for name in attributes if name.startswith("on")]
    assert "url(" not in page
    assert "@import" not in page
