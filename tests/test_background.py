"""The one implementation of a background loop."""

import asyncio
import contextlib

import pytest

from escala.background import BackgroundLoop


async def test_it_runs_again_after_the_pause_that_it_asked_for() -> None:
    runs = 0
    enough = asyncio.Event()

    async def task() -> float:
        nonlocal runs
        runs += 1
        if runs == 3:
            enough.set()
        return 0.001

    loop = BackgroundLoop("test", task)
    loop.start()
    loop.start()  # which does nothing
    async with asyncio.timeout(5):
        await enough.wait()
    await loop.stop()
    await loop.stop()
    at_the_stop = runs
    await asyncio.sleep(0.01)
    assert runs == at_the_stop


async def test_a_bug_is_reported_and_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("escala.background._AFTER_BUG", 0.001)
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context["exception"]))
    bug, again = KeyError("x"), asyncio.Event()

    async def task() -> float:
        if not reported:
            raise bug
        again.set()
        return 10

    loop = BackgroundLoop("test", task)
    loop.start()
    async with asyncio.timeout(5):
        await again.wait()
    await loop.stop()
    assert reported == [bug]


async def test_a_bug_in_a_fatal_one_ends_it() -> None:
    async def task() -> float:
        raise KeyError("x")

    loop = BackgroundLoop("test", task, fatal=True)
    loop.start()
    with pytest.raises(KeyError):
        await loop.ended()
    await loop.stop()


async def test_it_ends_where_a_library_swallows_the_cancellation() -> None:
    begun = asyncio.Event()

    async def task() -> float:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return 0.001

    loop = BackgroundLoop("test", task)
    loop.start()
    await begun.wait()
    async with asyncio.timeout(5):
        await loop.stop()
