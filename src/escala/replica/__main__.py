"""The program of a replica: ``python -m escala.replica app shop.main:app --socket /run/shop/web.1.sock``.

One process listens on one socket. It loads the target and serves it with uvicorn. When it is stopped, it first finishes
its requests or jobs, within the stop timeout.
"""

import argparse
import atexit
import faulthandler
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import uvicorn

from escala.errors import AppLoadError
from escala.http.methods import PARSED
from escala.replica.loading import load_app, load_tasks
from escala.replica.middleware.body_limit import BodyLimit
from escala.replica.middleware.forwarded_prefix import ForwardedPrefix
from escala.replica.middleware.health import Health
from escala.replica.middleware.server_name import ServerName
from escala.replica.middleware.trace import Trace
from escala.replica.protocol import AnyMethodProtocol, Protocol
from escala.replica.wsgi.server import WsgiServer

EXIT_CANNOT_LOAD = 2

_MAX_HEAD = 1024**2
"""The maximum size of a request's head in bytes. The gateway has its own, lower limit."""
_IMPORTED_LATE = (
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
)
"""Modules that uvicorn imports late. They are imported before the project's folder is put first on sys.path: a file
named queue.py in that folder must not shadow the standard library's."""


_THREADS_SECONDS = 1.0
"""How long threads may take to end after the server has stopped."""


def main() -> None:
    options = _parser().parse_args()
    faulthandler.enable()  # prints stack traces when the supervisor ends a hung replica with SIGABRT
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if options.root is not None:
        for name in (*_IMPORTED_LATE, *(["escala.tasks.worker.http"] if options.kind == "tasks" else [])):
            importlib.import_module(name)
        sys.path.insert(0, str(options.root))
    try:
        app = _build(options)
    except AppLoadError as error:
        if error.__cause__ is not None:  # raised inside the user's module: print where
            _show(error.__cause__)
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the error output of this program
        sys.exit(EXIT_CANNOT_LOAD)
    if options.list:
        from escala.tasks.listing import listed  # not imported by replicas of plain apps

        print(msgspec.json.encode(listed(load_tasks(options.target))).decode())  # noqa: T201 - the requested output
        return
    if options.check:
        return
    served = Health(app, options.health, app.threads if isinstance(app, WsgiServer) else None)
    server = uvicorn.Server(
        uvicorn.Config(
            ServerName(Trace(ForwardedPrefix(BodyLimit(served, options.max_body)))),
            host=options.host,
            port=options.port,
            loop="uvloop",
            http=Protocol if PARSED.issuperset(options.methods) else AnyMethodProtocol,
            h11_max_incomplete_event_size=_MAX_HEAD,
            ws="websockets-sansio",
            lifespan="auto",
            log_config=None,
            access_log=options.access_log,
            server_header=False,
            proxy_headers=True,
            forwarded_allow_ips="*" if options.socket else "127.0.0.1",  # no other user can connect to the socket
            timeout_keep_alive=75,  # longer than the gateway's, so that the gateway closes idle connections
            timeout_graceful_shutdown=max(1, int(options.stop_timeout)),
        )
    )
    # uvicorn raises the signal that ended it once more, which would skip the rest of this function.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # the supervisor reports starts and stops
    server.run(sockets=[_bound(options.socket)] if options.socket else None)
    _exit(0 if server.started else 3, patient=options.kind == "app")


def _exit(code: int, *, patient: bool) -> NoReturn:
    """End the process. A hanging thread of a job or request must not delay the end.

    With `patient`, the app's own atexit handlers run first, such as those of tracing and error reporting.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if not patient:
        os._exit(code)
    watchdog = threading.Timer(_THREADS_SECONDS, os._exit, [code])
    watchdog.daemon = True
    watchdog.start()
    atexit.register(watchdog.cancel)  # registered last, so it runs first, after threads have ended
    sys.exit(code)


def _bound(path: str) -> socket.socket:
    """Return a Unix socket that only this user can connect to. uvicorn would create it with access for everybody."""
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        made.bind(path)
    finally:
        os.umask(before)
    return made


def _show(error: BaseException) -> None:
    """Print a traceback without the frames of Escala and importlib."""
    ours = ("importlib", str(Path(__file__).parents[1]))
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if not any(word in frame.filename for word in ours)]
    )
    print("".join(shown.format()), end="", file=sys.stderr)  # noqa: T201


def _build(options: argparse.Namespace) -> Any:
    if options.kind == "app":
        return load_app(options.target, interface=options.interface, factory=options.factory, threads=options.threads)
    tasks = load_tasks(options.target)
    from escala.tasks.worker.http import worker_app  # not imported by replicas of plain apps, to save memory

    return worker_app(
        tasks,
        module=options.target,
        root=options.root or "",
        concurrency=options.concurrency,
        queues=dict(map(_weight, options.queue)) or None,
        drain_seconds=max(0.5, options.stop_timeout - 4),  # then it gives back what has not finished
    )


def _weight(option: str) -> tuple[str, float]:
    queue, _, weight = option.rpartition("=")
    return queue, float(weight)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m escala.replica", description=__doc__)
    parser.add_argument("kind", choices=["app", "tasks"])
    parser.add_argument("target", help="module:attribute of an ASGI or WSGI app, or a module with tasks")
    parser.add_argument("--root", help="folder to import from")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--socket", metavar="PATH", help="Unix socket to listen on, instead of host and port")
    parser.add_argument("--max-body", type=int, default=10 * 1024**2, help="maximum size of a request body in bytes")
    parser.add_argument("--stop-timeout", type=float, default=10.0, help="seconds to finish work when stopped")
    parser.add_argument("--concurrency", type=int, default=10, help="maximum number of jobs that run at a time (tasks)")
    parser.add_argument(
        "--queue", metavar="NAME=WEIGHT", action="append", default=[], help="a queue to serve (tasks); may be repeated"
    )
    parser.add_argument("--health", metavar="PATH", help="path of the app's health page")
    parser.add_argument("--threads", type=int, default=10, help="requests that a WSGI app handles at a time")
    parser.add_argument("--methods", nargs="*", default=(), help="additional HTTP methods that the routes allow")
    parser.add_argument("--interface", choices=["auto", "asgi", "wsgi"], default="auto")
    parser.add_argument("--factory", action="store_true", help="the target is a function that returns the app")
    parser.add_argument("--access-log", action="store_true")
    parser.add_argument(
        "--list", action="store_true", help="print the tasks as JSON, with their queues and functions, then exit"
    )
    parser.add_argument("--check", action="store_true", help="load the target, then exit")
    return parser


if __name__ == "__main__":
    main()
