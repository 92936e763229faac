"""HAProxy's Runtime API (Management Guide, section 9.3): changes to the running gateway without a reload.

Commands go through the master. So they also reach old workers, which finish their requests after a reload.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from escala.config import Address
from escala.engines.haproxy import alerts
from escala.errors import ReloadRefused, RuntimeRefused
from escala.gateway.haproxy.traffic import Traffic, parse
from escala.gateway.render.text import escaped, located
from escala.gateway.render.tokens import TABLE
from escala.gateway.topology.servers import Server

_TIMEOUT = 5.0
_PATIENCE = 0.5
"""Seconds to wait for an old worker left from a reload. A command that it receives while it ends is never answered."""
_RELOAD_TIMEOUT = 30.0


class _WorkerGone(ConnectionError):
    """The worker that should have run a command has ended."""


class RuntimeApi:
    """A client of the master's socket. Raises OSError while HAProxy is down, RuntimeRefused if it refuses a command."""

    def __init__(self, master: Path) -> None:
        self.master = master

    async def command(self, text: str) -> str:
        """Send one command to the worker that takes new connections, and return its answer."""
        return await self._of_worker((await self._workers())[0], text)

    async def everywhere(self, text: str) -> list[str]:
        """Send one command to all workers; return their answers, the current worker's first."""
        present, *old = await self._workers()
        return [await self._of_worker(present, text), *await self._answers(old, text)]

    async def reload(self) -> None:
        """Start a new worker with the configuration on disk; raise ReloadRefused if it cannot take over."""
        answer = await self._ask("reload", _RELOAD_TIMEOUT)
        head, _, words = answer.partition("\n")
        if head.strip() != "Success=1":
            raise ReloadRefused(" / ".join(alerts(words)) or answer or "no answer")

    async def apply(self, backend: str, server: Server, inflight: int) -> None:
        """Allow a ready replica `inflight` requests at a time; send no new ones to a replica that is not ready."""
        where = f"{backend}/{server.name}"
        if server.state != "ready":
            await self._set(f"set server {where} state {server.state}")
            return
        if isinstance(server.endpoint, Address):  # a socket's path contains the replica's number, so it never changes
            await self._move(where, server.endpoint)
        await self._set(f"set server {where} weight {server.weight}")
        await self._set(f"set maxconn server {where} {inflight}")
        await self._set(f"set server {where} state ready")
        await self._set(f"set server {where} health up")

    async def _move(self, where: str, address: Address) -> None:
        command = f"set server {where} addr {address.host} port {address.port}"
        answer, *_ = await self.everywhere(command)
        if "no need to change" not in answer and "changed from" not in answer:
            raise RuntimeRefused(command, answer)

    async def add(self, backend: str, server: Server, options: str) -> None:
        """Add a replica, which gets no requests yet."""
        where = f"{backend}/{server.name}"
        endpoint = escaped(located(server.endpoint))
        answer = await self.command(f"add server {where} {endpoint} {options}")
        if "New server registered" not in answer and "Already exists" not in answer:  # from an interrupted attempt
            raise RuntimeRefused(f"add server {where}", answer)
        await self._set(f"enable health {where}")

    async def remove(self, backend: str, name: str) -> None:
        """Remove a replica whose process has ended. HAProxy briefly refuses while a connection to it is still open."""
        where = f"{backend}/{name}"
        await self.everywhere(f"set server {where} state maint")
        answer = await self.command(f"del server {where}")
        # An earlier attempt that failed at a later backend may have removed it from this one already.
        if "deleted" not in answer and "No such server" not in answer:
            raise RuntimeRefused(f"del server {where}", answer)

    async def traffic(self) -> dict[int, list[Traffic]]:
        """Return each worker's counters by process id, the current worker first."""
        present, old = await self._processes()
        if not present and not old:
            raise ConnectionError("HAProxy has no worker")
        found = {}
        for pid in (*present, *old):
            with contextlib.suppress(_WorkerGone):
                found[pid] = parse(await self._of_any_worker(pid, "show stat"))
        if not found:
            raise ConnectionError("no worker of HAProxy has answered")
        return found

    async def set_map(self, file: str, entries: dict[str, str]) -> None:
        """Make a map contain exactly these entries in every worker; only differences are sent."""
        for pid in await self._workers():
            with contextlib.suppress(_WorkerGone):
                rows = (line.split() for line in (await self._of_any_worker(pid, f"show map {file}")).splitlines())
                known = {row[1]: row[2] for row in rows if len(row) == 3 and row[0].startswith("0x")}
                for key, value in entries.items():
                    if known.get(key) != value:
                        await self._quietly(pid, f"{'set' if key in known else 'add'} map {file} {key} {value}")
                for key in known.keys() - entries.keys():
                    await self._quietly(pid, f"del map {file} {key}")

    async def forget_tokens(self) -> None:
        """Forget all verified tokens, so that each one is verified again."""
        for pid in await self._workers():
            with contextlib.suppress(_WorkerGone):
                await self._quietly(pid, f"clear table {TABLE}")

    async def _quietly(self, pid: int, text: str) -> None:
        """Send a command to one worker; raise RuntimeRefused unless the answer is empty, which means success."""
        answer = await self._of_any_worker(pid, text)
        if answer:
            raise RuntimeRefused(text, answer)

    async def _set(self, text: str) -> None:
        answer, *_ = await self.everywhere(text)
        if answer:
            raise RuntimeRefused(text, answer)

    async def _workers(self) -> list[int]:
        """Return the workers' process ids, the current one first; raise ConnectionError if there is no current one."""
        present, old = await self._processes()
        if not present:
            raise ConnectionError("HAProxy has no worker yet")
        return [*present, *old]

    async def _processes(self) -> tuple[list[int], list[int]]:
        """Return the process ids of the current worker, if there is one, and of old workers left from reloads."""
        kind, workers, old = "", list[int](), list[int]()
        for line in (await self._ask("show proc")).splitlines():
            if line.startswith("#"):
                kind = line.strip("# ")
            elif kind == "workers":
                workers.append(int(line.split()[0]))
            elif kind == "old workers":
                old.append(int(line.split()[0]))
        return workers, old

    async def _answers(self, pids: Sequence[int], text: str) -> list[str]:
        """Return the workers' answers, skipping workers that end in the meantime."""
        answers = []
        for pid in pids:
            with contextlib.suppress(_WorkerGone):
                answers.append(await self._of_any_worker(pid, text))
        return answers

    async def _of_any_worker(self, pid: int, text: str) -> str:
        """Send a command to a worker that may be about to end; retry until it answers or is gone."""
        end = time.monotonic() + _TIMEOUT
        while True:
            try:
                return await self._of_worker(pid, text, _PATIENCE)
            except TimeoutError:
                if not any(pid in pids for pids in await self._processes()):
                    raise _WorkerGone(f"worker {pid} has ended") from None
                if time.monotonic() > end:
                    raise

    async def _of_worker(self, pid: int, text: str, seconds: float = _TIMEOUT) -> str:
        answer = await self._ask(f"@!{pid} {text}", seconds)
        if "Can't find the target" in answer or "Can't connect" in answer:
            raise _WorkerGone(answer)
        return answer

    async def _ask(self, text: str, seconds: float = _TIMEOUT) -> str:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(self.master)
            try:
                writer.write(f"{text}\n".encode())
                writer.write_eof()  # otherwise the master keeps waiting for more commands
                return (await reader.read()).decode().strip()
            finally:
                writer.close()
