"""Real signals at the supervisor and at its children, and children that do not behave."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import psutil
import pytest

from escala.processes.ports import free_port
from escala.processes.process import has_ended
from tests.load import run
from tests.support import CHAOS, REPOSITORY, Up, escala, long, wait_until, write

PROJECT = """
[project]
name = "sig"

[gateway]
bind = "127.0.0.1:{port}"

[services.web]
command = "{python} -m tests.gateway.small $PORT"
replicas = 2
routes = ["/echo"]
stop_timeout = "1s"
drain_timeout = "2s"

[services.odd]
command = "{python} odd.py"
start_timeout = "1h"
stop_timeout = "1s"
health = "tcp"
"""

STUBBORN = """
import signal, socket, os, time
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(each, signal.SIG_IGN)
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    s.accept()
"""

NEVER_READY = "import time; time.sleep(3600)"
ENDS_AT_ONCE = "print('no good'); raise SystemExit(3)"
FLOODS = """
import os, socket, sys, time
s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
line = "x" * 99 + "\\n"
began = time.monotonic()
for _ in range(100 * 10):
    sys.stdout.write(line * 1000)
sys.stdout.flush()
print(f"flooded", flush=True)
while True:
    s.accept()
"""


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[str], Up]]:
    started: list[Up] = []

    def begin(odd: str) -> Up:
        write(home, odd__py=odd)
        (home / "escala.toml").write_text(PROJECT.format(port=free_port(), python=sys.executable))
        up = Up(home / "escala.toml", "--no-output", environ={"PYTHONPATH": str(REPOSITORY)})
        started.append(up)
        return up

    yield begin
    for up in started:
        up.stop()


def state(up: Up, service: str = "odd") -> str:
    return str(up.replicas(service)[0]["state"])


def is_another(up: Up, known: set[int | None]) -> bool:
    return up.replicas("web")[0]["pid"] not in known


def family(up: Up) -> list[psutil.Process]:
    return psutil.Process(up.process.pid).children(recursive=True)


def assert_clean(up: Up, members: list[psutil.Process]) -> None:
    wait_until(lambda: all(has_ended(member.pid) for member in members), "no process is left", 10)


KINDS = {"stubborn": STUBBORN, "never ready": NEVER_READY, "ends at once": ENDS_AT_ONCE}
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


@pytest.mark.parametrize(("odd", "number"), list(product(KINDS, STOPS) if CHAOS else zip(KINDS, STOPS, strict=True)))
def test_children_that_do_not_behave_hold_up_no_stop(
    start: Callable[[str], Up], odd: str, number: signal.Signals
) -> None:
    up = start(KINDS[odd])
    if odd == "never ready":  # it is not even open yet
        wait_until(lambda: "web/1 ready" in up.said(), "the others are ready")
    else:
        up.wait_open()
    members = family(up)
    began = time.monotonic()
    os.kill(up.process.pid, number)
    assert up.wait_ended(30) == 0
    assert time.monotonic() - began < 25
    assert_clean(up, members)


@pytest.mark.parametrize("odd", [STUBBORN, NEVER_READY], ids=["stubborn", "never ready"])
def test_a_killed_supervisor_leaves_nothing(start: Callable[[str], Up], odd: str) -> None:
    up = start(odd)
    wait_until(lambda: ("web/1 ready" in up.said() and "odd" in up.said()) or odd is NEVER_READY, "it has begun")
    wait_until(lambda: "web/1 ready" in up.said(), "the others are ready")
    members = family(up)
    os.kill(up.process.pid, signal.SIGKILL)
    up.wait_ended()
    assert_clean(up, members)


def test_a_child_that_gets_a_signal_comes_back(start: Callable[[str], Up]) -> None:
    up = start(STUBBORN).wait_open()
    deadly = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGSEGV]
    for number in deadly if CHAOS else deadly[:3]:
        known = {None, up.replicas("web")[0]["pid"]}
        os.kill(up.replicas("web")[0]["pid"], number)
        wait_until(partial(is_another, up, known), "another has begun")
        wait_until(lambda: state(up, "web") == "serving", "it serves")
        assert f"killed by {number.name}" in up.said()


@long
def test_a_stopped_child_is_taken_out_and_killed_when_it_must_go(start: Callable[[str], Up]) -> None:
    up = start(ENDS_AT_ONCE).wait_open()
    os.kill(up.replicas("web")[1]["pid"], signal.SIGSTOP)
    run(up, "scale", "web=1")
    assert len(up.replicas("web")) == 1


def test_a_crash_loop_is_called_one(start: Callable[[str], Up]) -> None:
    up = start(ENDS_AT_ONCE).wait_open()
    wait_until(lambda: "it is in a crash loop" in up.said(), "it is noticed", 30)
    assert "crashing" in run(up, "status")
    assert "no good" in up.said()
    assert state(up, "web") == "serving"


def test_a_flood_of_output_blocks_nobody_and_is_kept_as_far_as_it_says(start: Callable[[str], Up]) -> None:
    up = start(FLOODS)
    log = up.project.layout.log / "odd-1.log"
    wait_until(lambda: log.exists() and "flooded" in log.read_text()[-2000:], "the flood is over", 60)
    kept = sorted(up.project.layout.log.glob("odd-1.log*"))
    assert len(kept) == 3
    assert sum(path.stat().st_size for path in kept) <= 3 * 11 * 1024**2
    up.wait_open()
    assert state(up, "web") == "serving"


@long
def test_a_stubborn_one_is_killed_when_it_is_scaled_away(start: Callable[[str], Up]) -> None:
    up = start(STUBBORN).wait_open()
    run(up, "scale", "odd=2")
    run(up, "scale", "odd=1")
    assert len(up.replicas("odd")) == 1


def test_settings_of_the_process(start: Callable[[str], Up]) -> None:
    up = start(STUBBORN)
    up.stop()
    folder = up.file.parent
    (folder / "elsewhere").mkdir()
    (folder / "vars.env").write_text('FIRST=from file\nSECOND="from file"\n# a comment\n')
    write(
        folder / "elsewhere",
        odd__py="""
        import os, resource, socket
        print(os.getcwd(), os.environ["FIRST"], os.environ["SECOND"], resource.getrlimit(resource.RLIMIT_NOFILE)[0],
              len(os.sched_getaffinity(0)), flush=True)
        s = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
        while True: s.accept()
        """,
    )
    extra = (
        'directory = "elsewhere"\nenv_file = "vars.env"\nenvironment = { SECOND = "from here" }\n'
        "open_files = 300\naffinity = true\n"
    )
    up.file.write_text(up.file.read_text() + extra)
    with Up(up.file, environ=up.environ) as again:
        again.wait_open()
        said = (again.project.layout.log / "odd-1.log").read_text()
        assert f"{folder / 'elsewhere'} from file from here 300 1" in said


def test_settings_that_cannot_be(start: Callable[[str], Up]) -> None:
    up = start(STUBBORN)
    up.stop()
    up.file.write_text(up.file.read_text() + 'env_file = "absent.env"\n')
    with Up(up.file, environ=up.environ) as again:
        again.wait_open()
        assert "services.odd.env_file" in again.said()
        assert "No such file" in again.said()
    done = escala("check", "--file", str(up.file), environ={"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode != 0


def test_a_stop_ends_what_is_being_applied(start: Callable[[str], Up]) -> None:
    up = start(STUBBORN).wait_open()
    extra = '[services.extra]\ncommand = "sleep 777"\nhealth = "tcp"\nstart_timeout = "1h"\nroutes = ["/extra"]\n'
    up.file.write_text(f"{up.file.read_text()}\n{extra}")
    command = [sys.executable, "-m", "escala", "apply", "--file", str(up.file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as applying:
        wait_until(lambda: up.replicas("extra"), "it is being applied")
        pid = wait_until(lambda: up.replicas("extra")[0]["pid"], "it has begun")
        up.process.terminate()
        up.process.wait(30)
        assert applying.stderr is not None
        assert "is stopping" in applying.stderr.read()
    assert applying.returncode == 1
    assert has_ended(pid)
