"""Values that are told apart by a text."""

import ipaddress
import pathlib
import zoneinfo
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID


def _moment(kind: Any) -> Callable[[Any], str]:
    return lambda value: f"{kind.isoformat(value)} {value.fold} {type(value.tzinfo).__qualname__} {value.tzinfo}"


WORDS: dict[type, Callable[[Any], str]] = {
    bool: bool.__repr__,
    int: lambda value: int.__format__(value, "x"),  # decimals of a large number are refused
    float: float.__repr__,
    complex: complex.__repr__,
    datetime: _moment(datetime),
    date: date.isoformat,
    time: _moment(time),
    timedelta: lambda value: f"{value.days} {value.seconds} {value.microseconds}",
    timezone: lambda value: f"{value.utcoffset(None)} {value.tzname(None)}",
    zoneinfo.ZoneInfo: zoneinfo.ZoneInfo.__str__,
    Decimal: Decimal.__str__,
    Fraction: Fraction.__str__,
    UUID: UUID.__str__,
    pathlib.PurePath: pathlib.PurePath.__str__,
    range: range.__repr__,
    ipaddress.IPv4Address: ipaddress.IPv4Address.__str__,
    ipaddress.IPv6Address: ipaddress.IPv6Address.__str__,
    ipaddress.IPv4Network: ipaddress.IPv4Network.__str__,
    ipaddress.IPv6Network: ipaddress.IPv6Network.__str__,
}
"""Types whose values are told apart by a text. The order matters: bool is an int, datetime is a date."""
