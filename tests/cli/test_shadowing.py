"""Files of a project that have the names of modules which Escala, or the standard library, needs itself."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from escala.cli.commands.check import shadowing
from escala.processes.ports import free_port
from tests.support import Up, wait_until, write

NAMES = ("queue", "logging", "platform", "token", "types", "email", "signal", "asyncio", "typing", "uuid")

APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def hello(request):
    return PlainTextResponse("hello")

app = Starlette(routes=[Route("/shop", hello)])
"""


@pytest.fixture
def shop(home: Path) -> Path:
    (home / "shop").mkdir()
    write(home / "shop", __init____py="", web__py=APP)
    (home / "shop" / "__init__.py").touch()
    for name in NAMES:
        (home / f"{name}.py").write_text("raise RuntimeError('this is not the standard library')\n")
    write(home, jobs__py="from escala import task\n@task\nasync def f() -> int:\n    return 1\n")
    (home / "escala.toml").write_text(
        f"""
[project]
name = "shadow"
[gateway]
bind = "127.0.0.1:{free_port()}"
public = true
[services.web]
app = "shop.web:app"
routes = ["/shop"]
[services.worker]
tasks = "jobs"
"""
    )
    return home


def test_they_are_named() -> None:
    folder = Path(__file__).parent
    assert shadowing(folder) == []


def escala(*words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run the installed program: `python -m escala` would have the folder first on its path before it begins."""
    program = str(Path(sys.executable).with_name("escala"))
    return subprocess.run([program, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_a_project_with_such_files_runs(shop: Path) -> None:
    """As `uvicorn shop.web:app` does; started in its folder, which is where people stand."""
    assert sorted(shadowing(shop)) == sorted(f"{name}.py" for name in NAMES)
    checked = escala("check", cwd=shop)
    assert checked.returncode == 0, checked.stderr
    assert "queue.py has the same name as the standard library's 'queue'" in " ".join(checked.stderr.split())
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("escala")), "up"],
        cwd=shop,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        up = Up.__new__(Up)
        up.file, up.options = shop / "escala.toml", ()
        wait_until(lambda: _answers(up.url), "it answers")
        wait_until(lambda: all(each["state"] == "serving" for each in up.status()["processes"]), "all serve")
    finally:
        process.terminate()
        process.wait(30)
    detached = escala("up", "-d", cwd=shop)
    assert detached.returncode == 0, detached.stdout + detached.stderr
    assert escala("down", cwd=shop).returncode == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/shop").text == "hello"
    except httpx.TransportError:
        return False
