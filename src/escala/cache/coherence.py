"""Coherence: invalidations reach every L1, and an L1 that might miss one is switched off.

The listener holds one subscription, and L1 is on while the subscription is active. L1 is emptied and switched off when
the connection breaks, or when a ping is not answered in time (a half-open socket). It is switched on again when the
subscription is active again.
"""

import asyncio
import logging
import time

import msgspec
import valkey.asyncio
from valkey.exceptions import ValkeyError

from escala.background import BackgroundLoop
from escala.cache.l1 import L1

PING_EVERY = 0.3
"""Seconds between two pings."""
SILENCE = 0.8
"""Seconds without any message from Valkey after which L1 is switched off."""
_RETRY_EVERY = 0.2

log = logging.getLogger("escala.cache")

_decoder = msgspec.msgpack.Decoder(list[str])


class Listener:
    def __init__(self, client: valkey.asyncio.Valkey, channel: str, l1: L1) -> None:
        self._client = client
        self._channel = channel
        self._l1 = l1
        self._loop = BackgroundLoop("cache coherence", self._follow)
        self._tried = asyncio.Event()
        self._stopping = False

    async def start(self) -> None:
        """Subscribe in the background. Return when the first attempt has succeeded or failed."""
        self._loop.start()
        await self._tried.wait()

    async def stop(self) -> None:
        self._stopping = True  # valkey-py may swallow the cancellation: it uses wait_for (python/cpython#86296)
        await self._loop.stop()
        self._l1.switch_off()

    async def _follow(self) -> float:
        try:
            await self._listen()
        except (OSError, TimeoutError, ValkeyError):
            pass  # expected: Valkey is unavailable
        finally:
            self._l1.switch_off()
            self._tried.set()
        return _RETRY_EVERY

    async def _listen(self) -> None:
        """Subscribe and handle messages until the connection is lost."""
        async with self._client.pubsub() as subscription:
            async with asyncio.timeout(SILENCE):
                await subscription.subscribe(self._channel)
            heard = pinged = time.monotonic()
            while not self._stopping:
                message = await subscription.get_message(timeout=PING_EVERY / 2)
                now = time.monotonic()
                if message is not None:
                    heard = now
                    self._handle(message)
                if now - heard > SILENCE:
                    raise TimeoutError("no message from Valkey")
                if now - pinged > PING_EVERY:
                    pinged = now
                    async with asyncio.timeout(SILENCE):
                        await subscription.ping()

    def _handle(self, message: dict[str, object]) -> None:
        if message["type"] == "subscribe":
            self._l1.switch_on()
            self._tried.set()
        elif message["type"] == "message":
            try:
                self._l1.invalidate(_decoder.decode(message["data"]))  # type: ignore[arg-type]
            except (msgspec.MsgspecError, TypeError):  # not sent by this version: any entry may be affected
                log.warning("received an unreadable cache invalidation; L1 was emptied")
                self._l1.switch_on()
