import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escala.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("2.5s", 2.5), ("10m", 600), ("1h", 3600), ("7d", 604800), (" 3 s ", 3)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["", "5", "s", "-1s", "1 week", "0s", "4000d", "1e9s", 5, None, "\u0661s", "5S"])
def test_bad_durations(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected a"):
        parse_duration(value)


@pytest.mark.parametrize(("text", "size"), [("512B", 512), ("64KiB", 65536), ("10MiB", 10 * 2**20), ("1MB", 10**6)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("value", ["", "64", "0B", "2000GiB", "1 mib", 64])
def test_bad_sizes(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected a"):
        parse_size(value)


@given(st.text())
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) > 0


def test_formats() -> None:
    seconds = [0.25, 4.24, 185, 7800, 5 * 86400]
    assert [format_duration(s) for s in seconds] == ["250 ms", "4.2 s", "3m 05s", "2h 10m", "5d 0h"]
    assert [format_size(s) for s in [812, 40_000_000, 3 * 2**30]] == ["812 B", "38.1 MiB", "3.0 GiB"]
