"""One connection to Valkey that many callers share."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias

import valkey.asyncio
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import NoScriptError, ResponseError, ValkeyError

from escala.cache.scripts import script

Command: TypeAlias = tuple[str | bytes | int, ...]

SECONDS = 1.0
"""How long Valkey may take to answer before the connection counts as lost."""
FAILURES = (OSError, TimeoutError, EOFError, ValkeyError)
"""The exceptions that a command raises while Valkey is unavailable, or when it refuses the command."""

_SCRIPTS = ("read", "begin", "write", "release", "renew", "invalidate")


class Wire:
    """Sends commands as they come, and hands out the answers in their order.

    A caller that is cancelled leaves its answer behind, and nothing else. After the first failure every command raises
    ConnectionError.
    """

    def __init__(self, connection: valkey.asyncio.Connection) -> None:
        self._connection = connection
        self._waiting: deque[tuple[asyncio.Future[list[Any]], int, float]] = deque()
        self._digests: dict[str, bytes] = {}
        self._reader: asyncio.Task[None] | None = None
        self.lost: BaseException | None = None
        """What ended the connection."""

    async def open(self) -> None:
        await self._connection.connect()  # type: ignore[no-untyped-call]
        # Sending must never wait: a caller that is cancelled while it waits would take the connection with it.
        self._connection._writer.transport.set_write_buffer_limits(high=2**30)  # type: ignore[union-attr]  # noqa: SLF001
        self._reader = asyncio.create_task(self._read(), name="cache connection")
        await self._load_scripts()

    async def close(self) -> None:
        self.fail(ValkeyConnectionError("the connection is closed"))
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader})
        await self._connection.disconnect(nowait=True)

    def fail(self, error: BaseException) -> None:
        """Let everything that waits fail, and everything that comes."""
        self.lost = self.lost or error
        while self._waiting:
            future, _, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(ValkeyConnectionError(f"the connection to Valkey was lost: {error}"))

    def is_late(self) -> bool:
        """Whether an answer has been due for longer than SECONDS."""
        return bool(self._waiting) and time.monotonic() - self._waiting[0][2] > SECONDS

    async def call(self, *command: str | bytes | int) -> Any:
        """Return the answer to a command. Raises one of FAILURES."""
        return (await self.calls([command]))[0]

    async def calls(self, commands: Sequence[Command]) -> list[Any]:
        """Send several commands at once; return their answers. Raises one of FAILURES, also for a refused command."""
        answers = await self._send(commands)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise answer
        return answers

    async def run(self, name: str, keys: Sequence[bytes], *arguments: str | bytes | int) -> Any:
        """Run a script. Raises one of FAILURES."""
        try:
            return await self.call("EVALSHA", self._digests[name], len(keys), *keys, *arguments)
        except NoScriptError:  # somebody has flushed the scripts
            await self._load_scripts()
            return await self.call("EVALSHA", self._digests[name], len(keys), *keys, *arguments)

    async def _load_scripts(self) -> None:
        digests = await self.calls([("SCRIPT", "LOAD", script(name)) for name in _SCRIPTS])
        self._digests = dict(zip(_SCRIPTS, digests, strict=True))

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        if self.lost is None and not self._connection.is_connected:  # it would connect again, without tracking
            self.fail(ValkeyConnectionError("the connection is closed"))
        if self.lost is not None:
            raise ValkeyConnectionError(f"the connection to Valkey was lost: {self.lost}")
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        # Nothing may come between these two lines: answers are told apart by their order.
        self._waiting.append((future, len(commands), time.monotonic()))
        sending = self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
        try:
            await sending
        except FAILURES as error:
            self.fail(error)
        return await future

    async def _read(self) -> None:
        answers: list[Any] = []
        try:
            while True:
                try:
                    answer = await self._connection.read_response(disable_decoding=True, disconnect_on_error=False)
                except ResponseError as error:
                    answer = error
                future, count, _ = self._waiting[0]
                answers.append(answer)
                if len(answers) == count:
                    self._waiting.popleft()
                    if not future.done():
                        future.set_result(answers)
                    answers = []
        except FAILURES as error:
            self.fail(error)
        except IndexError:
            self.fail(ValkeyConnectionError("Valkey sent an answer to no command"))
