"""A self-contained HTML file: the layout, one style sheet and one script that all pages share."""

import base64
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from twotower.core.storage import Store
from twotower.report import formats

_OWN = "twotower.report"
_FOLDER = "templates"


def render(
    template: str, context: dict[str, Any], package: str = _OWN, style: str | None = None
) -> str:
    """The page of a template; every value of the context is escaped.

    Args:
        template: File in the package's folder `templates`; it extends our `base.html`.
        context: What the template reads.
        package: Where the template lies.
        style: A style sheet beside the template, added to ours.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, _FOLDER) for name in (package, _OWN)]),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "integer": formats.integer,
        "method": formats.method_label,
        "metric": formats.metric_label,
        "percent": formats.percent,
        "plain": formats.plain,
        "rounded": formats.rounded,
        "score": formats.score,
        "seconds": formats.seconds,
    }
    script = _text(_OWN, "page.js")
    return environment.get_template(template).render(
        **context,
        # our own files, no data in them
        style=Markup(
            plot_style() + _text(_OWN, "page.css") + (_text(package, style) if style else "")
        ),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def plot_style() -> str:
    """Colours and the style of plots: all that a picture outside a page needs."""
    return _text(_OWN, "plot.css")


def write(page: str, out: str | Path) -> None:
    """Write a page, whole or not at all; ``out`` is a local path or a URI, its folder is made."""
    place = str(out) if "://" in str(out) else str(Path(out).absolute())
    folder, _, name = place.rpartition("/")
    # a name from outside may hold half a surrogate pair; the page must stay UTF-8
    Store(folder).write_bytes(name, page.encode(errors="replace"))


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(_FOLDER, name).read_text(encoding="utf-8")
