"""Caches of one process, and of several that share one Valkey."""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import valkey.asyncio

from escala import cache
from escala.cache import CacheSystem, Limits

_numbers = itertools.count()


def unique(word: str = "f") -> str:
    """Return a name that no other function of the tests has."""
    return f"{word}{next(_numbers)}"


@asynccontextmanager
async def system(url: str, entries: int = 100, **limits: int) -> AsyncIterator[CacheSystem]:
    made = CacheSystem(url, "tests", Limits(entries=entries, **limits))
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@contextmanager
def acting_as(made: CacheSystem) -> Iterator[None]:
    """Let caches use `made`, as in the process whose system it is."""
    before, cache.slot.value = cache.slot.value, made
    try:
        yield
    finally:
        cache.slot.value = before


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Any]:
    """A person's client, which knows nothing of Escala."""
    made = valkey.asyncio.Valkey.from_url(url)
    try:
        yield made
    finally:
        await made.aclose()
