"""What is asked of the cache, and what is found."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, NamedTuple

from escala.cache.codec import FORMAT, Codec
from escala.cache.l1 import L1, Entry
from escala.cache.policy import Policy
from escala.cache.valkey.l2 import Address, entry_name, tag_name

Source = Literal["l1", "l2", "loader"]


def address(cache: str, key: str, tags: Iterable[str], codec: Codec, *, listed: bool = False) -> Address:
    """Return where a value is kept: its entry, its tags with the one of the whole cache, and the field of its type.

    The number of tags is a part of the type, unless they are stored with the entry (`listed`).
    """
    names = (tag_name(cache), *[tag_name(cache, tag) for tag in tags])
    field = f"{FORMAT}{codec.fingerprint}{'' if listed else len(names)}"
    return Address(entry_name(key), names, field, listed)


class Request(NamedTuple):
    """One lookup: where the entry is, how its value is encoded, what is wanted, and how the value is loaded."""

    cache: str
    address: Address
    codec: Codec
    policy: Policy
    loader: Callable[[], Awaitable[Any]]
    words: str
    """What is looked up, in words."""

    @property
    def place(self) -> tuple[str, str]:
        """What tells a value from every other: the entry, and the declared type."""
        return self.address.name, self.address.field

    @property
    def names(self) -> tuple[str, ...]:
        """The names whose invalidation concerns the value: its entry and its tags."""
        return (self.address.name, *self.address.tags)

    @property
    def copied(self) -> bool:
        """Whether each caller gets a value of its own."""
        return self.policy.copy if self.policy.copy is not None else not self.codec.immutable


class Ticket(NamedTuple):
    """The L1 that a value is meant for, and the number of its latest invalidation before the value was loaded."""

    l1: L1
    number: int

    def is_current(self, names: tuple[str, ...]) -> bool:
        """Whether none of these names was invalidated since."""
        return self.l1.is_current(names, self.number)


class Stored(NamedTuple):
    """A value that a level has, fresh or not."""

    entry: Entry
    value: Any
    source: Source
    payload: bytes = b""
    """The value's bytes, if it comes from Valkey."""


class Loaded(NamedTuple):
    """A new value, and its bytes, from which each caller may get a value of its own."""

    value: Any
    payload: bytes
    source: Source

    def value_for(self, request: Request) -> Any:
        return request.codec.decode(self.payload) if request.copied else self.value
