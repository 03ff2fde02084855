"""Reads Debian control text (``apt-cache dumpavail``, ``Packages`` files) into package records."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from twotower.core.errors import DataError

RELATION_FIELDS = {
    "depends": ("Depends", "Pre-Depends"),
    "recommends": ("Recommends",),
    "suggests": ("Suggests",),
}
"""Relation name -> the control fields it is read from, in the order their groups are numbered."""

_PACKAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.\-]*")


@dataclass(frozen=True, slots=True)
class Target:
    """One package that a relation field names.

    ``position`` is the number of its comma-separated group, from 0: the alternatives ``a | b`` of
    one group have the same position.
    """

    name: str
    position: int


def read_stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Split control text into stanzas, one dict of field -> value each.

    Continuation lines (they start with a blank) are joined to their field with a newline.

    Raises:
        DataError: a line is no field, or a stanza has no ``Package`` field.
    """
    stanza: dict[str, str] = {}
    field = ""
    for number, raw in enumerate(lines, start=1):
        line = raw.rstrip("\r\n")
        if not line.strip():
            if stanza:
                yield _checked(stanza, number)
            stanza, field = {}, ""
        elif line[0] in " \t" and field:
            stanza[field] += "\n" + line.strip()
        else:
            field, colon, value = line.partition(":")
            if not colon or not field or field[0].isspace():
                raise DataError(
                    f"package dump, line {number}: expected 'Field: value', got {line!r}"
                )
            stanza[field] = value.strip()
    if stanza:
        yield _checked(stanza, number=0)


def _checked(stanza: dict[str, str], number: int) -> dict[str, str]:
    if not stanza.get("Package"):
        where = f"before line {number}" if number else "at the end"
        raise DataError(f"package dump: the stanza {where} has no Package field")
    return stanza


def relation_targets(stanza: dict[str, str], relation: str) -> Iterator[Target]:
    """Name every package in one relation of a stanza, alternatives included, in field order.

    Versions ``(>= 1)``, architectures ``foo:any`` and ``[amd64]`` are cut off. ``depends`` reads
    Depends and then Pre-Depends; the groups of the second are numbered on from the first.

    Args:
        stanza: one record of `read_stanzas`.
        relation: a key of `RELATION_FIELDS`.
    """
    position = 0
    for field in RELATION_FIELDS[relation]:
        for group in stanza.get(field, "").split(","):
            if not group.strip():
                continue
            for alternative in group.split("|"):
                if match := _PACKAGE_NAME.match(alternative.strip()):
                    yield Target(match.group(), position)
            position += 1


def source_name(stanza: dict[str, str]) -> str:
    """Name the source package; a binary package without the field is its own source."""
    return stanza.get("Source", stanza["Package"]).split(maxsplit=1)[0]


def synopsis(stanza: dict[str, str]) -> str:
    """Return the one-line description, or an empty string."""
    return stanza.get("Description", "").split("\n", maxsplit=1)[0]
