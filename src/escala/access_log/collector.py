"""The collector: ``python -m escala.access_log.collector --lines DESCRIPTOR --metrics PATH --folder PATH``.

HAProxy writes lines to a non-blocking pipe, so it never waits for the collector. Lines that do not fit into the pipe
are lost. The collector can count them, because HAProxy numbers its lines.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from escala.access_log.line import Entry, encode, parse
from escala.access_log.line_sequence import LineSequence
from escala.access_log.metrics import RouteMetrics
from escala.access_log.segments import Segments
from escala.environment import Environment
from escala.errors import CacheUnavailable
from escala.http import prometheus
from escala.http.embedded_server import EmbeddedServer

SUBJECTS = 200_000
"""How many tokens have their subject remembered.

HAProxy names the subject only when it verifies a token, not when it remembers a token that it has verified before.
"""

_CHUNK = 1024**2
"""The maximum number of bytes per read: the capacity of a pipe (pipe(7), pipe-max-size)."""
_MOST_WAITING = 50_000
"""How many lines may wait here, about 10 MB. While there are more, further lines stay in the pipe."""
_PAUSE = 0.03
"""Seconds to let lines collect. Each line would wake a waiting reader, which costs HAProxy time."""
_BREATH = 0.001
"""Seconds of pause between slices of lines, so that no request waits long for the collector's processor."""
_SLICE = 128
"""How many lines are processed at a time: about 0.4 ms of a processor."""
_MOST_SLICES = 8
"""The maximum number of slices for the waiting lines.

If there are more lines, the slices grow, so that the pauses never make the collector fall behind the gateway.
"""


class Collector:
    def __init__(self, segments: Segments, metrics: RouteMetrics, numbering: LineSequence) -> None:
        self._segments = segments
        self._metrics = metrics
        self._numbering = numbering
        self._subjects: dict[str, str] = {}
        self._failing = False
        self._news = asyncio.Event()
        self._stopping = False

    async def collect(self, pipe: int) -> None:
        """Process the lines of a pipe until it is closed or `finish` is called, and then those that are left in it."""
        os.set_blocking(pipe, False)
        waiting: list[bytes] = []
        rest = b""
        ended = False
        while not (self._stopping or ended):
            if len(waiting) < _MOST_WAITING:
                chunk = _read(pipe)
                ended = chunk == b""
                *lines, rest = (rest + (chunk or b"")).split(b"\n")
                waiting += lines
            if waiting:
                size = max(_SLICE, -(-len(waiting) // _MOST_SLICES))
                self.take(waiting[:size])
                del waiting[:size]
                await asyncio.sleep(_BREATH)
            elif not ended:
                await self._wait(pipe)
                await asyncio.sleep(_PAUSE)
        self.take(waiting + (rest + (_read(pipe) or b"")).split(b"\n"))

    def finish(self) -> None:
        self._stopping = True
        self._news.set()

    async def _wait(self, pipe: int) -> None:
        """Wait until there is something to read.

        The pipe is watched only here. Otherwise, each line would wake this process.
        """
        loop = asyncio.get_running_loop()
        self._news.clear()
        loop.add_reader(pipe, self._news.set)
        await self._news.wait()
        loop.remove_reader(pipe)

    def take(self, lines: list[bytes]) -> None:
        """Store and count lines."""
        kept = []
        for entry, worker, number in parse(lines):
            self._metrics.lost += self._numbering.missed(worker, number)
            self._name(entry)
            self._metrics.count(entry)
            kept.append(entry)
        if kept:
            self._write(kept)

    def _name(self, entry: Entry) -> None:
        """Fill in the subject of an entry if an earlier line named it for the same token."""
        if entry.token is None:
            return
        if entry.subject is None:
            entry.subject = self._subjects.get(entry.token)
        elif entry.status != 401:  # it was verified
            self._subjects.pop(entry.token, None)
            self._subjects[entry.token] = entry.subject
            if len(self._subjects) > SUBJECTS:
                del self._subjects[next(iter(self._subjects))]

    def _write(self, kept: list[Entry]) -> None:
        try:
            self._segments.append(encode(kept))
            self._numbering.save()
        except OSError as error:
            self._metrics.lost += len(kept)
            if not self._failing:
                print(f"the access log cannot be written, so lines are lost: {error}", file=sys.stderr)  # noqa: T201
            self._failing = True
        else:
            self._failing = False


def _read(pipe: int) -> bytes | None:
    """Return what a pipe holds; None if it is empty at the moment, b"" if all writers have closed it."""
    try:
        return os.read(pipe, _CHUNK)
    except BlockingIOError:
        return None


async def serve(options: argparse.Namespace) -> None:
    """Collect until SIGTERM, or until all writers have closed the pipe."""
    segments = Segments(options.folder, segment=options.segment, age=options.age, total=options.total)
    metrics = RouteMetrics()
    collector = Collector(segments, metrics, LineSequence(options.folder / "received.json"))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, collector.finish)
    options.metrics.unlink(missing_ok=True)

    def of_routes(request: Request) -> Response:
        return Response(metrics.text(), media_type=prometheus.MEDIA_TYPE)

    app = Starlette(routes=[Route("/metrics/routes", of_routes), Route("/metrics/cache", _of_cache)])
    web = EmbeddedServer(app)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(options.metrics))
    serving = asyncio.create_task(web.serve([listening]))
    await collector.collect(options.lines)
    web.should_exit = True
    await serving
    segments.close()


async def _of_cache(request: Request) -> Response:
    """Answer with the figures of the caches of all replicas, which report them in Valkey."""
    from escala.cache.valkey import report  # its client takes memory, and only those who ask for it need it

    environment = Environment.read()
    try:
        async with report.connection(environment.valkey, environment.project, "the report on the cache") as wire:
            return Response(
                report.exposition(await report.read(wire, environment.project)), media_type=prometheus.MEDIA_TYPE
            )
    except CacheUnavailable as error:
        return Response(f"{error}\n", 503, media_type="text/plain")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m escala.access_log.collector", description=__doc__)
    parser.add_argument("--lines", type=int, required=True, help="file descriptor of the pipe that HAProxy writes to")
    parser.add_argument("--metrics", type=Path, required=True, help="Unix socket on which to serve the route metrics")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the log files")
    parser.add_argument("--segment", type=int, default=32 * 1024**2, help="maximum size of one file in bytes")
    parser.add_argument("--age", type=float, default=3600.0, help="maximum time that one file covers in seconds")
    parser.add_argument("--total", type=int, default=512 * 1024**2, help="maximum size of all files in bytes")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
