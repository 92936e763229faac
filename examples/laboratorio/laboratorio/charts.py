"""Reports as text: CSV and SVG."""

import csv
import io
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

Row = dict[str, Any]

_CELL_WIDTH, _CELL_HEIGHT, _LEFT, _TOP = 46, 26, 210, 64
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_WORST = 30.0
"""The delay in minutes at which a cell has its full colour."""


def csv_of(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["airline"])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def delay_chart(rows: Sequence[Row]) -> str:
    """Draw mean arrival delays as a table of coloured cells: one row per carrier, one column per month."""
    airlines = sorted({row["airline"] for row in rows})
    months = sorted({row["month"] for row in rows})
    width = _LEFT + _CELL_WIDTH * len(months) + 20
    height = _TOP + _CELL_HEIGHT * len(airlines) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="16" y="26" font-size="16" font-weight="bold">Mean arrival delay, minutes</text>',
    ]
    for column, month in enumerate(months):
        x = _LEFT + _CELL_WIDTH * column + _CELL_WIDTH / 2
        parts.append(f'<text x="{x}" y="{_TOP - 8}" text-anchor="middle" fill="#555">{_MONTHS[month - 1]}</text>')
    for line, airline in enumerate(airlines):
        y = _TOP + _CELL_HEIGHT * line + 17
        parts.append(f'<text x="{_LEFT - 10}" y="{y}" text-anchor="end">{escape(airline)}</text>')
    parts += [_cell(row, months.index(row["month"]), airlines.index(row["airline"])) for row in rows]
    return "\n".join([*parts, "</svg>\n"])


def _cell(row: Row, column: int, line: int) -> str:
    delay = row["mean_arrival_delay"]
    x, y = _LEFT + _CELL_WIDTH * column, _TOP + _CELL_HEIGHT * line
    box = f'<rect x="{x}" y="{y}" width="{_CELL_WIDTH - 2}" height="{_CELL_HEIGHT - 2}" fill="{_colour(delay)}"/>'
    if delay is None:
        return box
    label = f'<text x="{x + _CELL_WIDTH / 2 - 1}" y="{y + 17}" text-anchor="middle">{round(delay)}</text>'
    return box + label


def _colour(delay: float | None) -> str:
    """Return the cell's colour: green for early, red for late, grey for no flights."""
    if delay is None:
        return "#eeeeee"
    strength = min(1.0, abs(delay) / _WORST)
    fade, full = round(255 - 130 * strength), round(255 - 15 * strength)
    return f"#{full:02x}{fade:02x}{fade:02x}" if delay > 0 else f"#{fade:02x}{full:02x}{fade:02x}"
