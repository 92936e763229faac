"""Connections to Valkey that many callers share.

valkey-py opens a connection: address, TLS, login. Then a protocol of ours takes its transport over, because the client
would spend more time on an answer than Valkey does. Requests and answers are packed and parsed by libvalkey.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import libvalkey
from valkey.asyncio.connection import AbstractConnection
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import ResponseError, ValkeyError

from escala.cache.valkey.scripts import script

Command: TypeAlias = tuple[str | bytes | int, ...]

SECONDS = 1.0
"""How long Valkey may take to answer before the connection counts as lost."""
FAILURES = (OSError, TimeoutError, EOFError, ValkeyError)
"""The exceptions that a command raises while Valkey is unavailable, or when it refuses the command."""

_ELSEWHERE = ("MOVED", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "LOADING")
"""How a refusal begins that tells that the keys are to be looked for again, on another server."""

_SCRIPTS = ("read", "begin", "write", "release", "renew", "invalidate")


class Socket(asyncio.Protocol):
    """A connection whose messages are handed to `received`, in their order. `on_lost` is called once, at its end."""

    def __init__(self, connection: AbstractConnection, on_lost: Callable[[], None]) -> None:
        self._connection = connection
        self._on_lost = on_lost
        self._transport: Any = None
        self._reader = libvalkey.Reader(replyError=ResponseError, notEnoughData=Ellipsis)
        self.lost: BaseException | None = None
        """What ended the connection."""

    async def open(self) -> None:
        await self._connection.connect()  # type: ignore[no-untyped-call]
        writer: Any = self._connection._writer  # noqa: SLF001 - there is no other way to its transport
        self._transport = writer.transport
        self._transport.set_protocol(self)

    def close(self) -> None:
        self.fail(ValkeyConnectionError("the connection is closed"))

    def send(self, *commands: Command) -> None:
        """Send commands. Raises ConnectionError if the connection is lost."""
        if self.lost is not None:
            raise ValkeyConnectionError(f"the connection to Valkey was lost: {self.lost}")
        self._transport.write(b"".join(map(libvalkey.pack_command, commands)))

    def received(self, message: Any) -> None:
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End the connection."""
        if self.lost is None:
            self.lost = error
            if self._transport is not None:
                self._transport.abort()
                self._connection._writer = self._connection._reader = None  # noqa: SLF001 - it is not to close it again
            self._on_lost()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (message := self._reader.gets()) is not Ellipsis:
                self.received(message)
        except libvalkey.LibvalkeyError as error:
            self.fail(ValkeyConnectionError(str(error)))

    def connection_lost(self, error: BaseException | None) -> None:
        self.fail(error or ValkeyConnectionError("Valkey has closed the connection"))


class Wire(Socket):
    """Sends commands as they come, and hands out the answers.

    A caller that is cancelled leaves its answer behind, and nothing else. After the first failure every command raises
    ConnectionError.
    """

    def __init__(self, connection: AbstractConnection, on_lost: Callable[[], None]) -> None:
        super().__init__(connection, on_lost)
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._answers: list[Any] = []
        self._digests: dict[str, bytes] = {}

    def is_late(self) -> bool:
        """Whether an answer has been due for longer than SECONDS."""
        return bool(self._waiting) and time.monotonic() - self._waiting[0][2] > SECONDS

    async def call(self, *command: str | bytes | int) -> Any:
        """Return the answer to a command. Raises one of FAILURES."""
        return (await self.calls(command))[0]

    def calls(self, *commands: Command) -> asyncio.Future[list[Any]]:
        """Send several commands at once. The future's result are their answers, or it raises one of FAILURES."""
        self.send(*commands)
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, len(commands), time.monotonic()))
        return future

    async def run(self, name: str, keys: Sequence[bytes], *arguments: str | bytes | int) -> Any:
        """Run a script. Raises one of FAILURES."""
        try:
            return await self.call("EVALSHA", self._digests[name], len(keys), *keys, *arguments)
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        await self.load_scripts()  # somebody has flushed them
        return await self.call("EVALSHA", self._digests[name], len(keys), *keys, *arguments)

    async def load_scripts(self) -> None:
        """Let `run` find its scripts. Raises one of FAILURES."""
        digests = await self.calls(*(("SCRIPT", "LOAD", script(name)) for name in _SCRIPTS))
        self._digests = dict(zip(_SCRIPTS, digests, strict=True))

    def received(self, message: Any) -> None:
        if not self._waiting:
            self.fail(ValkeyConnectionError("Valkey sent an answer to no command"))
            return
        answers = self._answers
        answers.append(message)
        future, count, _ = self._waiting[0]
        if len(answers) < count:
            return
        self._waiting.popleft()
        self._answers = []
        refusals = [answer for answer in answers if isinstance(answer, ResponseError)]
        if future.done():
            return  # its caller was cancelled
        if not refusals:
            future.set_result(answers)
            return
        future.set_exception(refusals[0])
        if str(refusals[0]).startswith(_ELSEWHERE):
            self.fail(refusals[0])

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        while self._waiting:
            future, _, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(ValkeyConnectionError(f"the connection to Valkey was lost: {error}"))


class Feed(Socket):
    """Hands on what Valkey says by itself: messages of subscriptions, and answers to pings."""

    def __init__(
        self,
        connection: AbstractConnection,
        on_lost: Callable[[], None],
        on_message: Callable[[list[Any]], None],
    ) -> None:
        super().__init__(connection, on_lost)
        self._on_message = on_message
        self._first: asyncio.Future[Any] | None = None

    async def ask(self, *command: str | bytes) -> Any:
        """Return the answer to a command, before there are subscriptions."""
        self._first = asyncio.get_running_loop().create_future()
        self.send(command)
        return await self._first

    def received(self, message: Any) -> None:
        if self._first is not None:
            first, self._first = self._first, None
            if not first.done():
                first.set_result(message)
        elif isinstance(message, ResponseError):
            self.fail(message)
        else:
            self._on_message(message)

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        if self._first is not None and not self._first.done():
            self._first.set_exception(ValkeyConnectionError(str(error)))
