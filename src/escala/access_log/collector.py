"""The collector: ``python -m escala.access_log.collector --socket PATH --metrics PATH --folder PATH``.

HAProxy writes lines to a ring in its memory and streams that to a socket; whatever happens here, it never waits. What
does not fit into the ring is lost, and counted, as HAProxy numbers its lines.
"""

import argparse
import asyncio
import contextlib
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from escala.access_log.line import Entry, NotALine, encode, parse
from escala.access_log.metrics import RouteMetrics
from escala.access_log.numbering import Numbering, worker_of
from escala.access_log.segments import Segments
from escala.inner_server import InnerServer

SUBJECTS = 200_000
"""Tokens whose subject is remembered: HAProxy names it only when it verifies a token, not when it finds it again."""

_CHUNK = 256 * 1024
_DRAINED = 16 * 1024
"""Bytes that HAProxy sends at a time where it has more than it could send before."""
_PAUSE = 0.1
"""Seconds to let lines gather: sent and taken one by one, they would cost as much as the requests themselves. HAProxy
fills the socket with single lines, and what comes after goes in large pieces."""
_BREATH = 0.001
"""Seconds between slices of lines, so that no request waits long for the processor that they are taken on."""
_SLICE = 64
"""Lines that are taken at a time: about 0.4 ms of a processor."""
_MOST_SLICES = 8
"""Of what was read at once; beyond it slices grow, so that pauses never keep the collector behind the gateway."""


class Collector:
    def __init__(self, segments: Segments, metrics: RouteMetrics, numbering: Numbering) -> None:
        self._segments = segments
        self._metrics = metrics
        self._numbering = numbering
        self._subjects: dict[str, str] = {}
        self._failing = False
        self._receiving: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take lines from one connection, which is one worker's, until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._receiving[writer] = task
        self._numbering.forget_ended()
        worker = worker_of(_peer(writer.get_extra_info("socket")))
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        rest = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                transport.pause_reading()  # a reader that nobody awaits would still be woken for each line
                for some in _slices(lines):
                    self.take(worker, some)
                    await asyncio.sleep(_BREATH)
                if len(chunk) < _DRAINED:
                    await asyncio.sleep(_PAUSE)
                transport.resume_reading()
        del self._receiving[writer]
        writer.close()

    async def finish(self) -> None:
        """Take what workers have sent already, and no more."""
        for writer in self._receiving:
            writer.get_extra_info("socket").shutdown(socket.SHUT_RD)
        await asyncio.gather(*self._receiving.values())

    def take(self, worker: str, lines: list[bytes]) -> None:
        """Keep and count a worker's lines."""
        kept = []
        for line in lines:
            try:
                entry, number = parse(line)
            except NotALine:
                continue
            self._metrics.lost += self._numbering.missed(worker, number)
            self._name(entry)
            self._metrics.count(entry)
            kept.append(encode(entry))
        if kept:
            self._write(kept)

    def _name(self, entry: Entry) -> None:
        """Put the subject into an entry whose token has been named before."""
        if entry.token is None:
            return
        if entry.subject is None:
            entry.subject = self._subjects.get(entry.token)
        elif entry.status != 401:  # it was verified
            self._subjects.pop(entry.token, None)
            self._subjects[entry.token] = entry.subject
            if len(self._subjects) > SUBJECTS:
                del self._subjects[next(iter(self._subjects))]

    def _write(self, kept: list[bytes]) -> None:
        try:
            self._segments.append(b"".join(kept))
            self._numbering.save()
        except OSError as error:
            self._metrics.lost += len(kept)
            if not self._failing:
                print(f"the access log cannot be written: {error}", file=sys.stderr)  # noqa: T201
            self._failing = True
        else:
            self._failing = False


def _slices(lines: list[bytes]) -> Iterator[list[bytes]]:
    size = max(_SLICE, -(-len(lines) // _MOST_SLICES))
    for first in range(0, len(lines), size):
        yield lines[first : first + size]


def _peer(connection: socket.socket) -> int:
    """Return the process at the other end (unix(7), SO_PEERCRED)."""
    pid, _user, _group = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


async def serve(options: argparse.Namespace) -> None:
    """Collect until SIGTERM, and then what HAProxy had already sent."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    segments = Segments(options.folder, segment=options.segment, age=options.age, total=options.total)
    metrics = RouteMetrics()
    collector = Collector(segments, metrics, Numbering(options.folder / "received.json"))
    for path in (options.socket, options.metrics):
        path.unlink(missing_ok=True)

    def answer(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    app = Starlette(routes=[Route("/metrics/routes", answer)])
    web = InnerServer(app)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(options.metrics))
    serving = asyncio.create_task(web.serve([listening]))
    async with await asyncio.start_unix_server(collector.receive, options.socket, limit=_CHUNK) as server:
        await stop.wait()
        server.close()
        await collector.finish()
    web.should_exit = True
    await serving
    segments.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m escala.access_log.collector", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="where HAProxy's ring connects")
    parser.add_argument("--metrics", type=Path, required=True, help="where the admin address gets route metrics")
    parser.add_argument("--folder", type=Path, required=True, help="where the files are kept")
    parser.add_argument("--segment", type=int, default=32 * 1024**2, help="bytes of one file")
    parser.add_argument("--age", type=float, default=3600.0, help="seconds of one file")
    parser.add_argument("--total", type=int, default=512 * 1024**2, help="bytes of all files")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
