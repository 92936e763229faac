"""How a replica ends: the app's own handlers run, and a thread that hangs does not hold it up."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from escala.processes.ports import free_port
from tests.support import wait_until, write

APP = """
    import atexit, threading, time
    print("imported")
    atexit.register(print, "atexit has run")
    {more}

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({{"type": message["type"] + ".complete"}})
                if message["type"].endswith("shutdown"):
                    return
"""


def ended(folder: Path, more: str) -> tuple[int, str, float]:
    """Run an app as a replica, stop it, and return its exit code, what it printed, and how long that took."""
    write(folder, web__py=APP.format(more=more))
    port = free_port()
    command = [
        sys.executable,
        "-P",
        "-m",
        "escala.replica",
        "app",
        "web:app",
        "--root",
        str(folder),
        "--port",
        str(port),
    ]
    output = folder / "out.txt"
    with output.open("wb") as target:
        process = subprocess.Popen(command, cwd=folder, stdout=target, stderr=subprocess.STDOUT)

    def listens() -> bool:
        import socket

        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listens, "it listens")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = process.wait(20)
    return code, output.read_text(), time.monotonic() - began


def test_handlers_of_the_app_run_and_what_it_printed_is_there(folder: Path) -> None:
    """Of Sentry, OpenTelemetry and the like; and nothing that was buffered is lost."""
    code, printed, _ = ended(folder, "")
    assert code == 0
    assert "imported" in printed
    assert "atexit has run" in printed


@pytest.mark.parametrize("daemon", [True, False])
def test_a_thread_that_hangs_holds_it_up_for_a_second_at_most(folder: Path, daemon: bool) -> None:
    code, _, seconds = ended(folder, f"threading.Thread(target=time.sleep, args=[60], daemon={daemon}).start()")
    assert code == 0
    assert seconds < 15


def test_what_is_relied_on_in_uvicorn_is_there() -> None:
    """`replica.protocol` subclasses what uvicorn does not document; pyproject.toml bounds its version for that."""
    from uvicorn import Config
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from escala.replica.protocol import AnyMethodProtocol, Protocol

    assert issubclass(Protocol, HttpToolsProtocol)
    assert issubclass(AnyMethodProtocol, H11Protocol)
    loaded = Config("a:b", ws="websockets-sansio")
    loaded.load_app = lambda: None  # type: ignore[method-assign]
    for protocol in (Protocol, AnyMethodProtocol):
        for name in vars(protocol):
            if name.startswith("on_") or name in {"handle_events", "data_received"}:
                base = HttpToolsProtocol if protocol is Protocol else H11Protocol
                assert hasattr(base, name), f"{base.__name__} has no {name} any more"
