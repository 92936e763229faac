"""Hears of new jobs (NOTIFY), so that they begin within milliseconds. Polling finds what is not heard."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from escala.tasks.worker.link import FAILURES, Link

log = logging.getLogger("escala.worker")

_CHECK_SECONDS = 10.0


class Listener:
    """`heard` gives, for each channel, what to call with the payload of a notification."""

    def __init__(self, link: Link, heard: Mapping[str, Callable[[str], None]]) -> None:
        self._link = link
        self._heard = heard

    async def listen(self) -> float:
        """Listen until the connection breaks; return the seconds until the next try."""
        try:
            connection = await self._link.connect()
            ended = asyncio.Event()
            connection.add_termination_listener(lambda _: ended.set())
            for channel in self._heard:
                await connection.add_listener(channel, self._hear)
            for hear in self._heard.values():
                hear("")  # of what was announced before
            while not ended.is_set():
                try:
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await ended.wait()
                except TimeoutError:
                    await connection.execute("select 1")  # a connection may be dead without a sign
        except FAILURES as error:
            log.debug("not listening for jobs: %s", error)
            await self._link.close()
        return 1.0

    def _hear(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        self._heard[channel](str(payload))
