"""A matrix with its numbers, as inline SVG."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from twotower.report import svg


def heatmap(names: Sequence[str], matrix: Sequence[Sequence[float]], title: str) -> Markup:
    """A symmetric matrix with its numbers, shaded from 0 to the largest off the diagonal."""
    cell, count = 40.0, len(names)
    left = svg.margin_for(names, least=60)
    top = _tilted_room(names)
    off = [matrix[i][j] for i in range(count) for j in range(count) if i != j]
    largest = max((v for v in off if math.isfinite(v)), default=0.0) or 1.0
    parts: list[Markup] = []
    for i, name in enumerate(names):
        x, y = left + cell * i + cell / 2, top + cell * i + cell / 2
        parts.append(svg.label(left - 8, y + 4, name, text_anchor="end"))
        parts.append(svg.label(x, top - 8, name, transform=f"rotate(-40 {x:.1f} {top - 8:.1f})"))
        for j, other in enumerate(names):
            value = matrix[i][j]
            hover = f"{name} and {other}: {value:.4f}" if i != j else f"{name}: {value:.4f}"
            shade = 0.0 if i == j else min(max(value / largest, 0.0), 1.0) * 0.62
            corner = (left + cell * j, top + cell * i)
            parts.append(_cell(corner, cell, value, shade, hover))
    # the last name leans out to the right of its column
    width = left + cell * count + max(_tilted_room(names[-1:]) - cell / 2, 8)
    return svg.picture(width, top + cell * count + 4, parts, title, "heatmap")


def _cell(
    corner: tuple[float, float], size: float, value: float, shade: float, hover: str
) -> Markup:
    x, y = corner
    box = svg.element(
        "rect",
        svg.element("title", hover),
        x=x + 1,
        y=y + 1,
        width=size - 2,
        height=size - 2,
        rx=3,
        class_="cell",
        fill_opacity=shade,
    )
    shown = f"{value:.2f}" if math.isfinite(value) else "–"  # noqa: RUF001 an en dash is meant
    return svg.group([box, svg.text(x + size / 2, y + size / 2 + 4, shown, text_anchor="middle")])


def _tilted_room(names: Sequence[str]) -> float:
    """Height (and width) that labels turned by 40 degrees need."""
    return max((min(len(n), svg.MOST_CHARS) for n in names), default=0) * svg.CHAR_WIDTH * 0.68 + 16
