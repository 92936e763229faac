"""A new project: init, dev, logs, the unit for systemd."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from escala.cli.commands.init import init
from escala.cli.commands.systemd import unit
from escala.errors import EscalaError
from escala.processes.ports import free_port
from escala.project.project import Project
from tests.support import escala, wait_until


@pytest.fixture
def shop(folder: Path) -> Path:
    init(folder / "My Shop!")
    return folder / "My Shop!"


def test_init_writes_a_project_that_is_checked_and_replaces_nothing(shop: Path) -> None:
    assert Project.open(shop / "escala.toml").name == "my-shop"
    assert (shop / ".gitignore").read_text().startswith(".escala/")
    done = escala("check", cwd=shop)
    assert done.returncode == 0, done.stdout + done.stderr
    (shop / "app" / "web.py").write_text("mine")
    with pytest.raises(EscalaError, match="nothing was written"):
        init(shop)
    assert (shop / "app" / "web.py").read_text() == "mine"


def test_its_own_tests_pass(shop: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    text = (shop / "tests" / "test_web.py").read_text().replace("8765", str(free_port()))
    (shop / "tests" / "test_web.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"],
        cwd=shop,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def dev(shop: Path) -> Iterator[tuple[Path, str, Path]]:
    bind, output = f"127.0.0.1:{free_port()}", shop.parent / "dev.txt"
    with output.open("wb") as target:
        command = [sys.executable, "-m", "escala", "dev", "--bind", bind]
        process = subprocess.Popen(command, cwd=shop, stdout=target, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: "open at http" in output.read_text() or process.poll() is not None, "it is open", 60)
            yield shop, f"http://{bind}", output
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, output.read_text()


def test_dev_takes_over_changes_and_survives_mistakes(dev: tuple[Path, str, Path]) -> None:
    shop, url, output = dev
    web = shop / "app" / "web.py"
    good = web.read_text()
    assert httpx.get(f"{url}/hello").json()["hello"] == "web/1"
    web.write_text(good.replace('"hello": os', '"hi": os'))
    wait_until(lambda: "hi" in httpx.get(f"{url}/hello").json(), "the change is there")
    web.write_text(good + "def broken(:\n")
    wait_until(lambda: "the rollout was stopped" in output.read_text(), "the mistake is shown")
    said = output.read_text()
    assert "SyntaxError: invalid syntax" in said
    assert "importlib" not in said
    assert "hi" in httpx.get(f"{url}/hello").json()
    web.write_text(good)
    wait_until(lambda: "hello" in httpx.get(f"{url}/hello").json(), "it is mended")
    file = shop / "escala.toml"
    mended = file.read_text().replace('"/squares", ', '{ path = "/squares", public = true }, ')
    file.write_text(mended)
    wait_until(lambda: httpx.get(f"{url}/squares/3").status_code == 200, "the file's change is there")
    file.write_text("[nonsense")
    wait_until(lambda: "is not valid TOML" in output.read_text(), "the file's mistake is shown")
    file.write_text(mended)

    def shown(*words: str) -> str:
        done = escala("logs", *words, cwd=shop)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "open at" in shown("escala", "-n", "1000")
    assert "SyntaxError" in shown("web", "--grep", "Syntax", "--since", "10m")
    assert shown("web", "--since", "1ms") == ""
    assert "/hello" in shown("--access", "--grep", "hello", "--since", "10m")
    for words in (["nobody"], ["--grep", "("], ["--since", "soon"], ["--json"], ["web", "--access"]):
        done = escala("logs", *words, cwd=shop)
        assert done.returncode != 0
        assert done.stderr.count("error:") == 1, done.stderr


def test_the_unit_for_systemd(shop: Path, tmp_path: Path) -> None:
    text = unit(Project.open(shop / "escala.toml", settings=["gateway.bind=0.0.0.0:80"]), "web")
    assert "Type=notify" in text
    assert f'--file "{shop / "escala.toml"}"' in text
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in text
    assert "User=web" in text


def test_systemd_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(folder / "told")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(folder / "notify"))
        heard.settimeout(60)
        command = [sys.executable, "-m", "escala", "up", "--no-output", "--bind", f"127.0.0.1:{free_port()}"]
        process = subprocess.Popen(
            command,
            cwd=folder / "told",
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
            stdout=subprocess.DEVNULL,
        )
        try:
            assert heard.recv(1000).startswith(b"READY=1\nSTATUS=open at http://")
            assert heard.recv(1000) == b"WATCHDOG=1"
        finally:
            process.send_signal(signal.SIGTERM)
        while heard.recv(1000) != b"STOPPING=1":
            pass
        assert process.wait(60) == 0
