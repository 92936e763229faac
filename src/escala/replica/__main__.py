"""The program of a replica: ``python -m escala.replica app shop.main:app --socket /run/shop/web.1.sock``.

One process, one socket. It loads what it is given, serves it with uvicorn, and ends after what it is doing is done.
"""

import argparse
import atexit
import faulthandler
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

import uvicorn

from escala.errors import AppLoadError
from escala.http.methods import PARSED
from escala.replica.loading import load_app, load_tasks
from escala.replica.middleware.body_limit import BodyLimit
from escala.replica.middleware.forwarded_prefix import ForwardedPrefix
from escala.replica.middleware.health import Health
from escala.replica.middleware.server_name import ServerName
from escala.replica.protocol import AnyMethodProtocol, Protocol
from escala.replica.wsgi.server import WsgiServer

EXIT_CANNOT_LOAD = 2

_MAX_HEAD = 1024**2
"""Bytes. The gateway has refused what is above its own limit."""
_IMPORTED_LATE = (
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
)
"""What is needed later, imported before the project's folder comes first where Python looks for modules: a file named
queue.py there must not stand in for the standard library's."""


_THREADS_SECONDS = 1.0
"""How long threads may take to end after the server."""


def main() -> None:
    options = _parser().parse_args()
    faulthandler.enable()  # where it hung, when the supervisor ends it with SIGABRT
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if options.root is not None:
        for name in (*_IMPORTED_LATE, *(["escala.tasks.worker.http"] if options.kind == "tasks" else [])):
            importlib.import_module(name)
        sys.path.insert(0, str(options.root))
    try:
        app = _build(options)
    except AppLoadError as error:
        if error.__cause__ is not None:  # raised inside the user's module: show where
            _show(error.__cause__)
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a program's last words
        sys.exit(EXIT_CANNOT_LOAD)
    if options.list:
        print(json.dumps(sorted(load_tasks(options.target))))  # noqa: T201 - it is what was asked for
        return
    if options.check:
        return
    served = Health(app, options.health, app.threads if isinstance(app, WsgiServer) else None)
    server = uvicorn.Server(
        uvicorn.Config(
            ServerName(ForwardedPrefix(BodyLimit(served, options.max_body))),
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
            forwarded_allow_ips="*" if options.socket else "127.0.0.1",  # no other user reaches the socket
            timeout_keep_alive=75,  # longer than the gateway keeps an idle connection, so that it is the one to close
            timeout_graceful_shutdown=max(1, int(options.stop_timeout)),
        )
    )
    # uvicorn raises the signal that ended it once more, which would skip the rest of this function.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # the supervisor tells who started and stopped
    server.run(sockets=[_bound(options.socket)] if options.socket else None)
    _exit(0 if server.started else 3, patient=options.kind == "app")


def _exit(code: int, *, patient: bool) -> NoReturn:
    """End the process; a thread that hangs, of a job or of a request, must not hold up the end.

    A `patient` end runs the app's own handlers (atexit), as those of tracing and error reporting.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if not patient:
        os._exit(code)
    watchdog = threading.Timer(_THREADS_SECONDS, os._exit, [code])
    watchdog.daemon = True
    watchdog.start()
    atexit.register(watchdog.cancel)  # first of all handlers, when threads have ended
    sys.exit(code)


def _bound(path: str) -> socket.socket:
    """Return a Unix socket that is open to this user alone; uvicorn would open it to everybody."""
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        made.bind(path)
    finally:
        os.umask(before)
    return made


def _show(error: BaseException) -> None:
    """Print a traceback from where the user's own code begins."""
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
    from escala.tasks.worker.http import worker_app  # a plain app's replica does not pay for it

    return worker_app(tasks, concurrency=options.concurrency, drain_seconds=max(0.5, options.stop_timeout - 1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m escala.replica", description=__doc__)
    parser.add_argument("kind", choices=["app", "tasks"])
    parser.add_argument("target", help="module:attribute of an ASGI or WSGI app, or a module with tasks")
    parser.add_argument("--root", help="folder to import from")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--socket", metavar="PATH", help="of a Unix socket to listen on instead")
    parser.add_argument("--max-body", type=int, default=10 * 1024**2, help="bytes")
    parser.add_argument("--stop-timeout", type=float, default=10.0, help="seconds")
    parser.add_argument("--concurrency", type=int, default=10, help="jobs at a time (tasks)")
    parser.add_argument("--health", metavar="PATH", help="page of the app that says whether it is well")
    parser.add_argument("--threads", type=int, default=10, help="requests that a WSGI app works on at a time")
    parser.add_argument("--methods", nargs="*", default=(), help="that routes let through, beside the usual ones")
    parser.add_argument("--interface", choices=["auto", "asgi", "wsgi"], default="auto")
    parser.add_argument("--factory", action="store_true", help="call what the target names to get the app")
    parser.add_argument("--access-log", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the names of the tasks as JSON, and do nothing more")
    parser.add_argument("--check", action="store_true", help="load, and do nothing more")
    return parser


if __name__ == "__main__":
    main()
