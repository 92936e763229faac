"""Durations and sizes as people write them: a number and a unit."""

import re
from typing import Any

_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", re.ASCII)


def _quantity(text: str, units: dict[str, Any], example: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError(f"expected a number with a unit ({', '.join(units)}), such as {example}")
    return float(match[1]) * float(units[match[2]])


def parse_duration(value: Any) -> float:
    """Return the seconds in a duration such as "500ms", "2.5s", "10m", "1h" or "7d".

    Raises ValueError if `value` is not such text, or not between 1ms and 3660d (about ten years).
    """
    if not isinstance(value, str):
        raise ValueError('expected a string with a unit, such as "30s"')  # noqa: TRY004 - pydantic wants ValueError
    seconds = _quantity(value, _DURATIONS, '"30s"')
    if not 0.001 <= seconds <= 3660 * 86400:
        raise ValueError("expected a duration between 1ms and 3660d")
    return seconds


def parse_size(value: Any) -> int:
    """Return the bytes in a size such as "512B", "64KiB", "10MiB", "1GiB" (powers of 1024) or "10MB" (powers of 1000).

    Raises ValueError if `value` is not such text, or not between 1B and 1024GiB.
    """
    if not isinstance(value, str):
        raise ValueError('expected a string with a unit, such as "64MiB"')  # noqa: TRY004 - pydantic wants ValueError
    size = int(_quantity(value, _SIZES, '"64MiB"'))
    if not 1 <= size <= 2**40:
        raise ValueError("expected a size between 1B and 1024GiB")
    return size


def format_duration(seconds: float) -> str:
    """Format a duration for a person: "350 ms", "4.2 s", "3m 05s", "2h 10m", "5d 3h"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02d}m"
    return f"{hours // 24}d {hours % 24}h"


def format_size(size: float) -> str:
    """Format a number of bytes for a person: "812 B", "39.1 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
