"""Replicas are replaced, and follow the load, under requests; none fails."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from escala.processes.ports import free_port
from tests.load import Load, no_failure, run, token_of
from tests.support import REPOSITORY, Up, escala, long, wait_until, write

APP = """
import os
import time

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

VERSION = {version!r}


async def echo(request):
    {body}
    return JSONResponse({{"replica": os.environ["ESCALA_REPLICA"], "version": VERSION, "pid": os.getpid(),
                          "said": os.environ.get("SAID")}})


app = Starlette(routes=[Route("/echo", echo)])
"""

PROJECT = """
[project]
name = "roll"

[gateway]
bind = "127.0.0.1:{port}"

[services.web]
app = "web:app"
replicas = 3
routes = ["/echo"]
{options}
"""


def release(folder: Path, version: str, body: str = "pass") -> None:
    write(folder, web__py=APP.format(version=version, body=body))


@pytest.fixture
def roll(home: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(options: str = "", text: str = PROJECT, **values: Any) -> Up:
        release(home, "1")
        if "rollout" not in options:
            options += '\nrollout = { settle = "100ms" }'
        (home / "escala.toml").write_text(
            text.format(port=free_port(), options=options, python=sys.executable, **values)
        )
        up = Up(home / "escala.toml", environ={"PYTHONPATH": str(REPOSITORY)})
        started.append(up)
        up.wait_open()  # which it is as soon as one of them serves
        wait_until(lambda: all(p["state"] == "serving" for p in up.status()["processes"]), "all serve", 60)
        return up

    yield start
    for up in started:
        up.stop()


def versions(up: Up, token: str, count: int = 30) -> set[str]:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=up.url, headers=headers) as http:
        return {http.get("/echo").json()["version"] for _ in range(count)}


def failed(up: Up, *words: str) -> str:
    done = escala(words[0], "--file", str(up.file), *words[1:])
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def states(up: Up) -> list[str]:
    return [process["state"] for process in up.replicas("web")]


def test_a_rolling_restart_takes_over_new_code_and_fails_no_request(roll: Callable[..., Up]) -> None:
    up = roll()
    token = token_of(up)
    before = {process["pid"] for process in up.replicas("web")}
    with no_failure(up) as load:
        release(up.file.parent, "2")
        assert "rolled out" in run(up, "restart", "web")
        load.more(50)
    after = up.replicas("web")
    assert len(after) == 3
    assert not before & {process["pid"] for process in after}
    assert versions(up, token) == {"2"}
    assert "web: rollout finished, 3 replaced" in up.said()


@pytest.mark.parametrize(
    ("broken", "reason", "options"),
    [
        ("raise ValueError('half written')", "ValueError: half written", ""),
        pytest.param("import time; time.sleep(60)", "not ready within", 'start_timeout = "5s"', marks=long),
    ],
)
def test_a_version_that_is_broken_leaves_the_old_one_serving(
    roll: Callable[..., Up], broken: str, reason: str, options: str
) -> None:
    up = roll(options)
    token = token_of(up)
    before = sorted(process["pid"] for process in up.replicas("web"))
    with no_failure(up) as load:
        write(up.file.parent, web__py=broken)
        words = failed(up, "restart", "web")
        load.more(20)
    assert "did not become ready" in words
    assert reason in words
    assert "3 old replicas continue to serve" in words
    assert sorted(process["pid"] for process in up.replicas("web")) == before
    assert states(up) == ["serving"] * 3
    assert versions(up, token) == {"1"}
    assert "did not become ready" in run(up, "status")
    release(up.file.parent, "2")
    run(up, "restart", "web")
    assert versions(up, token) == {"2"}
    assert "did not become ready" not in run(up, "status")


def test_words_after_a_failure_say_what_clients_have(roll: Callable[..., Up]) -> None:
    """The old replica is in a crash loop: it does not serve on."""
    up = roll("replicas = 1", text=PROJECT.replace("replicas = 3\n", ""))
    write(up.file.parent, web__py="raise SystemExit(1)")
    os.kill(up.replicas("web")[0]["pid"], signal.SIGKILL)
    wait_until(lambda: states(up) == ["waiting"], "it cannot start again")
    assert "no replica serves: requests get 503" in failed(up, "restart", "web")


def test_apply_rolls_what_changed_and_goes_back_where_it_fails(roll: Callable[..., Up]) -> None:
    up = roll('environment = { SAID = "one" }')
    headers = {"Authorization": f"Bearer {token_of(up)}"}
    good = up.file.read_text()
    with no_failure(up) as load:
        up.file.write_text(good.replace("one", "two"))
        assert "the replicas of these services are replaced: web" in run(up, "apply")
        assert httpx.get(f"{up.url}/echo", headers=headers).json()["said"] == "two"
        up.file.write_text(good.replace("one", "three").replace("web:app", "web:absent"))
        words = failed(up, "apply")
        assert "has no attribute 'absent'" in words
        load.more(20)
        assert httpx.get(f"{up.url}/echo", headers=headers).json()["said"] == "two"
        # A replica that dies now comes back as it was, not as the version that failed.
        os.kill(up.replicas("web")[0]["pid"], signal.SIGKILL)
        wait_until(lambda: states(up) == ["serving"] * 3, "it is back")
        up.file.write_text(good.replace("one", "four"))
        run(up, "apply")
        assert httpx.get(f"{up.url}/echo", headers=headers).json()["said"] == "four"


def test_a_version_that_ends_soon_after_it_was_ready_goes_back(roll: Callable[..., Up]) -> None:
    up = roll('rollout = { settle = "3s" }')
    with no_failure(up):
        text = APP.format(version="2", body="pass") + "import threading\nthreading.Timer(0.5, os._exit, (3,)).start()\n"
        write(up.file.parent, web__py=text)
        words = failed(up, "restart", "web")
    assert "became ready, but then ended: exit code 3" in words
    assert versions(up, token_of(up)) == {"1"}


@long
def test_what_comes_during_a_rollout_waits_or_is_refused(roll: Callable[..., Up]) -> None:
    up = roll('rollout = { settle = "2s" }')
    with no_failure(up):
        run(up, "restart", "web", "--no-wait")
        for words in (["scale", "web=1"], ["restart"]):
            assert "is being rolled out" in failed(up, *words)
        good = up.file.read_text()
        up.file.write_text(good.replace("replicas = 3", "replicas = 1"))
        assert "is being rolled out" in failed(up, "apply")
        up.file.write_text(good)
        wait_until(lambda: "web: rollout finished" in up.said(), "it is done", 60)
    assert len(up.replicas("web")) == 3
    assert "Traceback" not in up.said()


@long
def test_a_file_of_variables_is_looked_at_when_it_changes_and_missed_only_while_it_is_named(
    roll: Callable[..., Up], folder: Path
) -> None:
    (folder / "my.env").write_text("SAID=one")
    up = roll('env_file = "my.env"')
    headers = {"Authorization": f"Bearer {token_of(up)}"}
    (folder / "my.env").write_text("SAID=two")
    run(up, "apply")
    assert httpx.get(f"{up.url}/echo", headers=headers).json()["said"] == "two"
    (folder / "my.env").unlink()
    assert "env_file" in failed(up, "apply")
    up.file.write_text(up.file.read_text().replace('env_file = "my.env"', ""))
    os.kill(up.process.pid, signal.SIGHUP)
    wait_until(lambda: up.said().count("web: rollout finished") == 2, "it is replaced")
    assert httpx.get(f"{up.url}/echo", headers=headers).json()["said"] is None
    assert "were not loaded" not in up.said()


@long
def test_pinned_ports_are_pinned_again_afterwards(roll: Callable[..., Up]) -> None:
    ports = [free_port(), free_port()]
    up = roll(f"ports = {ports}\nrollout = {{ max_surge = 2, settle = '100ms' }}")
    with no_failure(up):
        run(up, "restart", "web")
    addresses = {process["address"] for process in up.replicas("web")}
    assert {f"127.0.0.1:{port}" for port in ports} <= addresses
    assert len(addresses) == 3


@long
def test_without_room_for_more_one_goes_first(roll: Callable[..., Up]) -> None:
    up = roll("rollout = { max_surge = 0, max_unavailable = 1, settle = '100ms' }")
    with no_failure(up):
        run(up, "restart")
    assert len(up.replicas("web")) == 3


def test_a_canary_that_fails_goes_back(roll: Callable[..., Up]) -> None:
    up = roll()
    token = token_of(up)
    with Load(up.url, token) as load:
        release(up.file.parent, "2", body="return JSONResponse({'replica': 'canary'}, 500)")
        words = failed(up, "deploy", "web", "--canary", "20%", "--watch", "3s")
        assert "the canary did worse" in words
        assert "3 old replicas continue to serve" in words
        load.more(10)
    bad, good = load.answers[500], load.answers[200]
    assert 0 < bad < good / 2  # it had its share, and no more
    assert versions(up, token) == {"1"}


@long
def test_a_canary_that_is_well_becomes_all(roll: Callable[..., Up]) -> None:
    up = roll()
    with no_failure(up):
        release(up.file.parent, "2")
        assert "rolled out" in run(up, "deploy", "--canary", "20%", "--watch", "2s")
    assert "the canary is good" in up.said()
    assert versions(up, token_of(up)) == {"2"}


@long
def test_hangup_takes_over_file_and_code(roll: Callable[..., Up]) -> None:
    up = roll()
    with no_failure(up):
        release(up.file.parent, "2")
        os.kill(up.process.pid, signal.SIGHUP)
        wait_until(lambda: "web: rollout finished" in up.said(), "all are replaced", 60)
    assert versions(up, token_of(up)) == {"2"}


@long
def test_replicas_that_have_served_enough_are_replaced(roll: Callable[..., Up]) -> None:
    up = roll("max_requests = 200")
    first = {process["pid"] for process in up.replicas("web")}
    with no_failure(up):
        wait_until(lambda: not first & {p["pid"] for p in up.replicas("web")}, "all are replaced", 60)
    assert "is being replaced: it has served" in up.said()


@long
def test_a_replica_that_grows_too_large_is_replaced(roll: Callable[..., Up]) -> None:
    up = roll('max_memory = "250MiB"')
    with no_failure(up):
        release(up.file.parent, "2", body="globals().setdefault('kept', bytearray(300 * 2**20))")
        run(up, "restart", "web")
        wait_until(lambda: "of memory" in up.said(), "one is replaced", 60)


def test_replicas_whose_sockets_were_deleted_are_replaced_at_once(roll: Callable[..., Up]) -> None:
    up = roll()
    lost = up.replicas("web")[:2]
    with no_failure(up):
        for replica in lost:
            Path(replica["address"].removeprefix("unix:")).unlink()
        left = {replica["pid"] for replica in lost}
        wait_until(lambda: not left & {p["pid"] for p in up.replicas("web")}, "they are replaced", 30)
    assert up.said().count("is being replaced: its socket was deleted") == 2
    assert up.said().count("web: rolling out, 2 replicas to replace") == 1
    wait_until(lambda: states(up) == ["serving"] * 3, "there are as many as before")


SCALED = """
[project]
name = "roll"

[gateway]
bind = "127.0.0.1:{port}"

[services.web]
command = "{python} -m tests.gateway.small $PORT"
replicas = {{ min = {least}, max = 4, target_inflight = 5, up_after = "1s", down_after = "3s" }}
balance = {{ inflight = 10 }}
routes = ["/echo"]
"""


def test_the_number_follows_the_load(roll: Callable[..., Up]) -> None:
    up = roll(text=SCALED, least=1)
    headers = {"Authorization": f"Bearer {token_of(up)}"}
    end = time.monotonic() + 6

    def ask() -> list[int]:
        answers = []
        with httpx.Client(base_url=up.url, headers=headers, timeout=30) as http:
            while time.monotonic() < end:
                answers.append(http.get("/echo?hold=0.1").status_code)
        return answers

    with ThreadPoolExecutor(20) as pool:
        asking = [pool.submit(ask) for _ in range(20)]
        wait_until(lambda: len(up.replicas("web")) == 4, "it has grown", 20)

        def why() -> str:
            return next(str(each["why"]) for each in up.status()["services"] if each["name"] == "web")

        wait_until(lambda: "in flight or waiting" in why(), "it says why", 20)
        assert {status for each in asking for status in each.result()} == {200}
    wait_until(lambda: len(up.replicas("web")) == 1, "it has shrunk", 30)
    assert up.said().count("replicas (") <= 4


WORKERS = """
[project]
name = "roll"

[gateway]
bind = "127.0.0.1:{port}"

[services.work]
tasks = "jobs"
directory = "inner"
environment = {{ NEEDED = "1" }}
concurrency = 1
replicas = {{ min = 1, max = 3, target_waiting = 2, down_after = "3s" }}
routes = ["/task"]
"""


@long
def test_workers_follow_the_queue(roll: Callable[..., Up], folder: Path) -> None:
    (folder / "inner").mkdir()
    write(
        folder / "inner",
        jobs__py="""
        import asyncio, os
        from escala import task
        os.environ["NEEDED"]
        print("imported")

        @task()
        async def rest() -> None:
            await asyncio.sleep(1)
        """,
    )
    up = roll(text=WORKERS)
    with httpx.Client(base_url=up.url, headers={"Authorization": f"Bearer {token_of(up)}"}) as http:
        for _ in range(10):
            assert http.post("/task", json={"task": "rest"}).status_code == 202
    wait_until(lambda: len(up.replicas("work")) == 3, "it has grown")
    assert "jobs wait" in up.said()
    wait_until(lambda: len(up.replicas("work")) == 1, "it has shrunk", 40)
    run(up, "scale", "work=2")  # it stays for a while, by whomever it was asked for


def test_a_service_sleeps_and_a_request_wakes_it(roll: Callable[..., Up]) -> None:
    up = roll(text=SCALED, least=0)
    headers = {"Authorization": f"Bearer {token_of(up)}"}
    assert up.replicas("web") == []
    for _ in range(2):
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: httpx.post(f"{up.url}/echo", headers=headers, timeout=30), range(5)))
        assert {answer.status_code for answer in answers} == {200}
        wait_until(lambda: up.replicas("web") == [], "it sleeps again", 30)
