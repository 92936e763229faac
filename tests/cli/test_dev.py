"""What `escala dev` follows, and that no file which the app writes itself makes a wheel of it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from escala.cli.commands.dev import Wheel, is_followed
from escala.processes.ports import free_port
from tests.support import minimal_config, wait_until, write


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("web.py", True),
        ("deep/er/web.py", True),
        ("data/prices.csv", True),
        ("other/prices.csv", False),
        ("cache.json", False),
        ("app/made.py", False),
        ("notes.txt", False),
    ],
)
def test_what_is_followed(name: str, counts: bool) -> None:
    config = minimal_config(
        dev={"watch": ["*.py", "data/*.csv"], "ignore": ["app/made.py"]},
    )
    assert is_followed(config, name) is counts


def test_a_file_that_changes_soon_after_each_roll_out_is_left_out() -> None:
    wheel = Wheel()
    assert wheel.turn(["web.py", "made.py"], 0.0) == []
    for turn in (1, 2):
        wheel.rolled_at = float(turn)
        assert wheel.turn(["made.py"], turn + 0.3) == [], turn
    wheel.rolled_at = 3.0
    assert wheel.turn(["made.py", "web.py"], 3.3) == ["made.py"]
    assert wheel.left_out == {"made.py"}
    assert wheel.turn(["made.py"], 60.0) == []
    assert wheel.left_out == set()  # somebody changed it at another time


def test_a_person_who_saves_often_is_no_wheel() -> None:
    wheel = Wheel()
    for turn in range(20):
        wheel.rolled_at = 10.0 * turn
        assert wheel.turn(["web.py"], 10.0 * turn + 3) == []


APP = """
import time
from pathlib import Path

Path("stamp.json").write_text(str(time.time()))


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
"""


def test_an_app_that_writes_when_it_starts(home: Path) -> None:
    write(home, web__py=APP)
    (home / "escala.toml").write_text(
        f"""
[project]
name = "wheel"
[gateway]
bind = "127.0.0.1:{free_port()}"
[services.web]
app = "web:app"
routes = ["/web"]
[dev]
watch = ["*.py", "*.json"]
"""
    )
    output = home.parent / f"{home.name}.txt"
    with output.open("wb") as target:
        process = subprocess.Popen([sys.executable, "-m", "escala", "dev"], cwd=home, stdout=target, stderr=target)
    try:
        wait_until(lambda: "open at http" in output.read_text(), "it is open", 60)
        web = home / "web.py"

        def noticed() -> bool:  # files are followed from a moment after it is open
            web.write_text(f"{APP}\n# changed {time.time()}")
            return "changed: web.py" in output.read_text()

        wait_until(noticed, "a change is seen")
        wait_until(lambda: "stamp.json changes each time the replicas start" in output.read_text(), "it is seen")
        said = output.read_text()
        assert '[dev] ignore = ["stamp.json"]' in said
        web.write_text(f"{APP}\n# changed again")
        more = said.count("web: rollout finished") + 1
        wait_until(lambda: output.read_text().count("web: rollout finished") >= more, "changes of others still count")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, output.read_text()
