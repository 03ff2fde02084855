"""Item features of the Debian graph, with what could name a person taken out.

A person could be named in three fields. Maintainers become numbers; a homepage host that few
projects share (it may be somebody's own site) becomes ``other``; of a synopsis only words stay
that several projects use, and of words always written as names only those of many projects.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import pyarrow as pa

from twotower.datasets.debian_control import source_name, synopsis

MIN_HOST_SOURCES = 10  # chosen by reading the list: no host this common is a person's name
MIN_WORD_SOURCES = 2  # a word of one project says nothing about another, and is often a name
MIN_PROPER_NOUN_SOURCES = 20  # chosen by reading the list: the words this drops hold the names
OTHER_HOST = "other"

ITEM_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("source", pa.string()),
        ("section", pa.string()),
        ("architecture", pa.string()),
        ("maintainer", pa.string()),
        ("homepage_host", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("name_words", pa.list_(pa.string())),
        ("summary_words", pa.list_(pa.string())),
    ]
)

# Hosts that give every user a subdomain, which may be the user's name: the rest is the site.
_USER_SITES = (
    "berlios.de", "bitbucket.io", "blogspot.com", "codeberg.page", "free.fr", "github.io",
    "gitlab.io", "googlecode.com", "googlepages.com", "linuxaudio.org", "netlify.app", "pages.dev",
    "readthedocs.io", "readthedocs.org", "rubyforge.org", "sf.net", "sourceforge.io",
    "sourceforge.net", "tuxfamily.org", "wordpress.com",
)  # fmt: skip
_WORD = re.compile(r"[^\W_]+(?:\+\+|#)?")  # keeps c++ and c#, splits real-time and foo_bar
_NAME_PART = re.compile(r"[a-z]+|[0-9]+")
_ADDRESS = re.compile(r"\S*@\S*")


def item_table(packages: Sequence[Mapping[str, str]]) -> pa.Table:
    """Build the catalogue, one row a package in the given order, with columns `ITEM_SCHEMA`.

    ``section``, ``architecture`` and ``homepage_host`` are null where the package has none.
    Packages with no debtags have an empty list.
    """
    stanzas = [dict(package) for package in packages]
    sources = [source_name(stanza) for stanza in stanzas]
    columns = {
        "item_id": [stanza["Package"] for stanza in stanzas],
        "source": sources,
        "section": [stanza.get("Section") for stanza in stanzas],
        "architecture": [stanza.get("Architecture") for stanza in stanzas],
        "maintainer": maintainer_ids([stanza.get("Maintainer", "") for stanza in stanzas]),
        "homepage_host": common_hosts([stanza.get("Homepage") for stanza in stanzas], sources),
        "tags": [split_tags(stanza.get("Tag", "")) for stanza in stanzas],
        "name_words": [name_words(stanza["Package"]) for stanza in stanzas],
        "summary_words": summary_words([synopsis(stanza) for stanza in stanzas], sources),
    }
    return pa.table(columns, schema=ITEM_SCHEMA)


def maintainer_ids(maintainers: Sequence[str]) -> list[str]:
    """Replace each ``Name <address>`` with an opaque id: m0001 maintains most packages.

    Equal addresses are one maintainer, whatever the spelling of the name. Ties in the number of
    packages are ordered by a hash, so that neighbouring numbers aren't alphabetical neighbours.
    """
    keys = [_address(maintainer) for maintainer in maintainers]
    counts = Counter(keys)
    ranked = sorted(counts, key=lambda key: (-counts[key], hashlib.sha256(key.encode()).digest()))
    ids = {key: f"m{number:04d}" for number, key in enumerate(ranked, start=1)}
    return [ids[key] for key in keys]


def _address(maintainer: str) -> str:
    match = re.search(r"<([^>]*)>", maintainer)
    return (match.group(1) if match else maintainer).strip().lower()


def common_hosts(homepages: Sequence[str | None], sources: Sequence[str]) -> list[str | None]:
    """Reduce homepages to hosts; one of fewer than `MIN_HOST_SOURCES` sources is `OTHER_HOST`."""
    hosts = [_host(homepage) for homepage in homepages]
    users: defaultdict[str, set[str]] = defaultdict(set)
    for host, source in zip(hosts, sources, strict=True):
        if host is not None:
            users[host].add(source)
    return [
        host if host is None or len(users[host]) >= MIN_HOST_SOURCES else OTHER_HOST
        for host in hosts
    ]


def _host(homepage: str | None) -> str | None:
    if not homepage:
        return None
    try:
        host = urlsplit(homepage.strip("<> ")).hostname or OTHER_HOST
    except ValueError:  # a bracket in the host part: not an address, but the field isn't missing
        return OTHER_HOST
    host = host.removeprefix("www.")
    return next((site for site in _USER_SITES if host.endswith("." + site)), host)


def split_tags(field: str) -> list[str]:
    """Split a debtags field, sorted and distinct."""
    return sorted({tag.strip() for tag in field.split(",") if tag.strip()})


def name_words(name: str) -> list[str]:
    """Split a package name into runs of letters and of digits: distinct, in order of appearance."""
    return list(dict.fromkeys(_NAME_PART.findall(name.lower())))


def summary_words(synopses: Sequence[str], sources: Sequence[str]) -> list[list[str]]:
    """Split synopses into lower-case words, distinct and sorted: the sentence can't be rebuilt.

    Left out: addresses, words used by fewer than `MIN_WORD_SOURCES` sources, and words only ever
    written like a name (``Steve``) and used by fewer than `MIN_PROPER_NOUN_SOURCES` sources.
    """
    bags = [_WORD.findall(_ADDRESS.sub(" ", text)) for text in synopses]
    users: defaultdict[str, set[str]] = defaultdict(set)
    plain: set[str] = set()
    for bag, source in zip(bags, sources, strict=True):
        for word in bag:
            users[word.lower()].add(source)
            if not (word[0].isupper() and word[1:].islower()):
                plain.add(word.lower())
    kept = {
        word
        for word, by in users.items()
        if len(by) >= (MIN_WORD_SOURCES if word in plain else MIN_PROPER_NOUN_SOURCES)
    }
    return [sorted({word.lower() for word in bag} & kept) for bag in bags]
