"""The program of a handler process: ``python -m escala.tasks.worker.handlers.process MODULE FOLDER DESCRIPTOR``.

It runs one attempt at a time, for a worker at the other end of a socket, and ends with it.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Sequence

from escala.connections import running
from escala.environment import Environment
from escala.replica.loading import load_tasks
from escala.tasks.worker.attempt import Attempt, Outcome
from escala.tasks.worker.handlers import wire
from escala.tasks.worker.handlers.local import Handlers

_PROGRESS_SECONDS = 0.5


async def _serve(module: str, connected: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=connected)
    running_one: Attempt | None = None

    def done(ended: Sequence[tuple[Attempt, Outcome]]) -> None:
        nonlocal running_one
        running_one = None
        [(attempt, outcome)] = ended
        attempt.settled = True
        _report(attempt, writer)
        wire.send(writer, wire.Ended(outcome))

    tasks = load_tasks(module)
    handlers = Handlers(running(Environment.read()), done)
    await handlers.open()
    wire.send(writer, wire.Ready())
    while True:
        message = await wire.read_request(reader)
        if isinstance(message, wire.Run):
            running_one = Attempt(message.job, tasks[message.job.task], message.owner)
            handlers.start([running_one])
            asyncio.get_running_loop().call_later(_PROGRESS_SECONDS, _follow, running_one, writer)
        elif running_one is not None:
            running_one.interrupted = message.reason
            handlers.interrupt(running_one)


def _follow(attempt: Attempt, writer: asyncio.StreamWriter) -> None:
    """Report progress until the attempt has ended."""
    if not attempt.settled:
        _report(attempt, writer)
        asyncio.get_running_loop().call_later(_PROGRESS_SECONDS, _follow, attempt, writer)


def _report(attempt: Attempt, writer: asyncio.StreamWriter) -> None:
    if attempt.context.reported != attempt.reported:
        attempt.reported = attempt.context.reported
        wire.send(writer, wire.Progress(*attempt.reported))


def main() -> None:
    module, folder, descriptor = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    os.set_inheritable(int(descriptor), False)  # a process that a handler starts must not keep it open
    if folder:
        sys.path.insert(0, folder)
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the worker has ended
        asyncio.run(_serve(module, socket.socket(fileno=int(descriptor))))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a hanging thread of a handler must not delay the end


if __name__ == "__main__":
    main()
