"""Coherence: invalidations reach every L1, and an L1 that might miss one switches itself off.

The listener holds one subscription. While it stands, L1 is on; when the connection breaks, or no answer to a ping
comes in time (a half-open socket), L1 is emptied and off until the subscription stands again.
"""

import asyncio
import contextlib
import logging
import time

import msgspec
import valkey.asyncio
from valkey.exceptions import ValkeyError

from escala.cache.l1 import L1

PING_EVERY = 0.3
"""Seconds."""
SILENCE = 0.8
"""Seconds without a word from Valkey after which L1 is off."""
_RETRY_EVERY = 0.2

log = logging.getLogger("escala.cache")

_decoder = msgspec.msgpack.Decoder(list[str])


class Listener:
    def __init__(self, client: valkey.asyncio.Valkey, channel: str, l1: L1) -> None:
        self._client = client
        self._channel = channel
        self._l1 = l1
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._stopping = False

    async def start(self) -> None:
        """Subscribe in the background; return when the first try has an outcome."""
        self._task = asyncio.create_task(self._run(), name="cache coherence")
        await self._tried.wait()

    async def stop(self) -> None:
        self._stopping = True
        if self._task is not None:
            self._task.cancel()  # may be lost: valkey-py waits with wait_for (python/cpython#86296)
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._l1.switch_off()

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self._listen()
            except (OSError, TimeoutError, ValkeyError):
                pass  # the usual: Valkey is away
            except Exception:
                log.exception("cache coherence broke off; trying again")
            finally:
                self._l1.switch_off()
                self._tried.set()
            await asyncio.sleep(_RETRY_EVERY)

    async def _listen(self) -> None:
        """Subscribe and follow until the connection is lost."""
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
                    raise TimeoutError("no word from Valkey")
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
            except (msgspec.MsgspecError, TypeError):  # from another version, or not ours: it may concern anything
                log.warning("an invalidation that cannot be read: L1 is emptied")
                self._l1.switch_on()
