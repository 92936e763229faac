"""What is in Valkey, for people: keys and values, without the types that services declare."""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import msgspec

from escala.cache.codec import load_extension
from escala.cache.valkey.l2 import entry_name, read_field, tag_name
from escala.cache.valkey.report import prefix_of
from escala.cache.valkey.wire import Wire

_PAGE = 500


class Found(NamedTuple):
    """One value of a key: there is one for each declared type."""

    value: Any
    seconds_left: float
    """Seconds for which it is still fresh."""
    size: int
    """The stored bytes."""
    state: str
    """Whether it is still valid, in words."""


class Inspection:
    """Raises one of `wire.FAILURES` where Valkey does not answer."""

    def __init__(self, wire: Wire, project: str) -> None:
        self._wire = wire
        self._prefix = prefix_of(project)

    async def keys(self, cache: str | None) -> AsyncIterator[str]:
        """Yield the keys of one cache, or of all."""
        entries = self._prefix + entry_name("")
        start = f"{entries}{cache}:" if cache else entries
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in start) + "*"
        position: bytes | int = 0
        while True:
            position, page = await self._wire.call("SCAN", position, "MATCH", pattern, "COUNT", _PAGE)
            for key in page:
                yield key.decode(errors="surrogateescape").removeprefix(entries)
            if int(position) == 0:
                return

    async def get(self, key: str) -> list[Found]:
        """Return the values of a key, one for each declared type."""
        clear = self._prefix + tag_name(key.partition(":")[0])
        fields, generation, (seconds, _) = await self._wire.calls(
            ("HGETALL", self._prefix + entry_name(key)), ("GET", clear), ("TIME",)
        )
        found = []
        for field, stored in zip(fields[::2], fields[1::2], strict=True):
            if field.startswith(b"tags "):
                continue
            held = read_field(stored)
            generations = held.generations
            try:
                value = msgspec.msgpack.decode(held.payload or b"", ext_hook=load_extension)
            except (msgspec.MsgspecError, ValueError, TypeError, LookupError):
                continue  # another version's
            if generations[:1] != [generation]:
                state = "invalidated"
            elif len(generations) > 1:
                state = f"valid unless one of its {len(generations) - 1} tags was invalidated"
            else:
                state = "valid"
            found.append(Found(_readable(value), held.fresh_until - int(seconds), len(stored), state))
        return found


def _readable(value: Any) -> Any:
    """Return a value with pydantic's models, which are kept as JSON, as what they say."""
    if isinstance(value, bytes):
        try:
            return msgspec.json.decode(value)
        except msgspec.MsgspecError:
            return value
    if isinstance(value, dict):
        return {name: _readable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    return value
