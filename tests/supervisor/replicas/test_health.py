"""Load is not death: whether replicas are well, and what becomes of those that are not."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from escala.gateway.haproxy.traffic import Traffic
from escala.processes.ports import free_port
from escala.supervisor.replicas.health import Health, judge
from tests.support import REPOSITORY, Up, wait_until, write


def traffic(*, answers: int = 0, full: bool = False, inflight: int = 1) -> Traffic:
    return Traffic("web", "1", True, inflight, 0, 0, 1, 0, answers, full, 0)


def test_two_bad_answers_take_a_replica_out_and_a_good_one_puts_it_back() -> None:
    once = judge(Health(), "unhealthy", None, 1.0)
    twice = judge(once, "unhealthy", None, 2.0)
    assert [once.state, twice.state, judge(twice, "healthy", None, 3.0).state] == ["healthy", "unhealthy", "healthy"]


def test_silence_with_room_to_spare_is_a_hang() -> None:
    once = judge(Health(), "silent", traffic(answers=5), 1.0)
    twice = judge(once, "silent", traffic(answers=5), 3.0)
    assert [once.state, twice.state, twice.silent_since] == ["healthy", "hung", 1.0]
    assert judge(twice, "silent", traffic(answers=5), 40.0).silent_since == 1.0


def test_a_replica_that_answers_requests_is_busy_however_silent() -> None:
    health = Health()
    for second in range(100):
        health = judge(health, "silent", traffic(answers=second), float(second))
    assert (health.state, health.silent_since) == ("busy", 99.0)


def test_a_full_replica_stays_in_and_its_silence_is_counted() -> None:
    health = Health()
    for second in range(100):
        health = judge(health, "silent", traffic(full=True), float(second))
    assert (health.state, health.silent_since) == ("busy", 0.0)


def test_nobody_could_be_asked_about_its_requests() -> None:
    health = judge(judge(Health(), "silent", None, 1.0), "silent", None, 3.0)
    assert health == Health()


def test_somebody_elses_server_is_busy_while_it_has_requests() -> None:
    """Its threads may be fewer than `inflight`, and all at long requests."""
    states = []
    for inflight in (40, 0):
        health = Health()
        for second in range(3):
            health = judge(health, "silent", traffic(inflight=inflight), float(second), patient=True)
        states.append(health.state)
    assert states == ["busy", "hung"]


APPS = """
import asyncio, os, threading, time
import flask
from fastapi import FastAPI, Response

fast = FastAPI()
well = {"status": 200}

@fast.get("/health")
def health():
    return Response(status_code=well["status"])

@fast.get("/fast/unwell")
async def unwell(status: int):
    well["status"] = status

@fast.get("/fast/threads")
def threads(seconds: float):
    time.sleep(seconds)
    return os.environ["ESCALA_REPLICA"]

@fast.get("/fast/pid")
async def pid():
    return os.getpid()

hang = FastAPI()

@hang.get("/hang/pid")
async def hang_pid():
    return os.getpid()

@hang.get("/hang/block")
async def block(seconds: float):
    time.sleep(seconds)

def django_app():
    import django.conf
    from django.core.asgi import get_asgi_application
    from django.http import HttpResponse
    from django.urls import path
    urls = type("urls", (), {"urlpatterns": [
        path("health", lambda request: HttpResponse("healthy")), path("django/x", lambda request: HttpResponse("x"))]})
    django.conf.settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
    return get_asgi_application()

stream = FastAPI()

@stream.get("/health")
async def streamed_health():
    from fastapi.responses import StreamingResponse
    return StreamingResponse(iter(["we", "ll"]))

@stream.get("/stream/x")
async def streamed():
    return "x"

noisy = FastAPI()

@noisy.get("/noisy")
async def hello():
    return "hello"

wsgi = flask.Flask(__name__)

@wsgi.get("/<service>/sleep")
def sleep(service):
    time.sleep(float(flask.request.args["seconds"]))
    return os.environ["ESCALA_REPLICA"]
"""


@pytest.fixture(scope="module")
def up(make_folder: Callable[[], Path], seed: Callable[[Path], Path]) -> Iterator[Up]:
    folder = seed(make_folder())
    write(folder, apps__py=APPS)
    gunicorn = f"{sys.executable} -m gunicorn -k gthread --threads 3 --bind 127.0.0.1:$PORT apps:wsgi"
    (folder / "escala.toml").write_text(
        f"""
[project]
name = "health"
[gateway]
bind = "127.0.0.1:{free_port()}"
public = true
balance = {{ queue_timeout = "20s" }}
[services.fast]
app = "apps:fast"
health = "/health"
routes = ["/fast"]
[services.hang]
app = "apps:hang"
hang_timeout = "6s"
replicas = 2
balance = {{ algorithm = "roundrobin" }}
routes = ["/hang"]
[services.django]
app = "apps:django_app"
factory = true
health = "/health"
routes = ["/django"]
[services.stream]
app = "apps:stream"
health = "/health"
routes = ["/stream"]
[services.noisy]
app = "apps:noisy"
access_log = true
routes = ["/noisy"]
[services.flask]
app = "apps:wsgi"
threads = 3
routes = ["/flask"]
[services.gunicorn]
command = "{gunicorn}"
balance = {{ inflight = 3 }}
routes = ["/gunicorn"]
"""
    )
    with Up(folder / "escala.toml") as running:
        yield running.wait_open()


def states(up: Up, service: str) -> Counter[str]:
    return Counter(each["health"] for each in up.replicas(service))


@pytest.mark.parametrize("service", ["flask", "gunicorn"])
def test_three_times_as_many_clients_as_threads(up: Up, service: str) -> None:
    """For longer than checks have patience; with one replica, whose fall would be everybody's 503."""
    answers: Counter[int] = Counter()
    end = time.monotonic() + 7

    def ask() -> None:
        with httpx.Client(base_url=up.url, timeout=30) as http:
            while time.monotonic() < end:
                answers[http.get(f"/{service}/sleep", params={"seconds": 2.5}).status_code] += 1

    clients = [threading.Thread(target=ask) for _ in range(9)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert answers.keys() == {200}
    assert answers[200] >= 9


def test_a_health_page_in_busy_threads(up: Up) -> None:
    """FastAPI's `def` pages share 40 threads; one that says whether it is well may wait behind the others."""
    clients = [
        threading.Thread(target=lambda: httpx.get(f"{up.url}/fast/threads?seconds=5", timeout=30)) for _ in range(80)
    ]
    for each in clients:
        each.start()
    end = time.monotonic() + 7
    while time.monotonic() < end:
        assert httpx.get(f"{up.url}/fast/pid", timeout=10).status_code == 200
        time.sleep(0.2)
    for each in clients:
        each.join()
    assert states(up, "fast") == {"healthy": 1}


def test_an_app_that_says_it_is_not_well(up: Up) -> None:
    assert httpx.get(f"{up.url}/fast/unwell?status=503").status_code == 200
    wait_until(lambda: states(up, "fast") == {"unhealthy": 1}, "it is out")
    refused = httpx.get(f"{up.url}/fast/pid")
    assert (refused.status_code, refused.json()["detail"]) == (503, "No replica of the service is ready.")
    status = up.status()
    assert status["phase"] == "degraded"
    assert status["problems"] == ["fast: fast/1: it is unhealthy"]
    replica = up.replicas("fast")[0]
    transport = httpx.HTTPTransport(uds=replica["address"].removeprefix("unix:"))
    with httpx.Client(transport=transport, base_url="http://replica") as inside:
        inside.get("/fast/unwell?status=200")
    wait_until(lambda: states(up, "fast") == {"healthy": 1}, "it is back")
    assert httpx.get(f"{up.url}/fast/pid").status_code == 200
    assert up.status()["phase"] == "ready"


def test_a_replica_that_hangs_gets_nothing_new_and_is_replaced(up: Up) -> None:
    before = {httpx.get(f"{up.url}/hang/pid").json() for _ in range(4)}
    assert len(before) == 2
    with contextlib.suppress(httpx.TimeoutException):
        httpx.get(f"{up.url}/hang/block?seconds=600", timeout=0.5)
    wait_until(lambda: states(up, "hang") == {"hung": 1, "healthy": 1}, "it is seen")
    assert [httpx.get(f"{up.url}/hang/pid", timeout=2).status_code for _ in range(6)] == [200] * 6
    wait_until(
        lambda: {httpx.get(f"{up.url}/hang/pid", timeout=9).json() for _ in range(4)} != before, "another serves"
    )
    wait_until(lambda: states(up, "hang") == {"healthy": 2}, "both are well")
    wait_until(lambda: sum(each["restarts"] for each in up.replicas("hang")) == 1, "one was started again")
    assert "ended: it hung: it answered nothing for" in up.said()
    assert 'apps.py", line' in up.said()  # where it hung


def test_a_replica_that_is_stopped_in_its_tracks(up: Up) -> None:
    """SIGSTOP: not even the program answers. It is the only one, so requests are refused, at once."""
    victim = up.replicas("noisy")[0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    try:
        wait_until(lambda: states(up, "noisy") == {"hung": 1}, "it is seen")
        assert httpx.get(f"{up.url}/noisy", timeout=5).status_code == 503
    finally:
        os.kill(victim, signal.SIGCONT)
    wait_until(lambda: states(up, "noisy") == {"healthy": 1}, "it is well again")
    assert httpx.get(f"{up.url}/noisy").status_code == 200


@pytest.mark.parametrize("service", ["django", "stream"])
def test_health_pages_of_other_frameworks(up: Up, service: str) -> None:
    assert httpx.get(f"{up.url}/{service}/x").status_code == 200
    assert states(up, service) == {"healthy": 1}


def test_an_app_is_not_asked(up: Up) -> None:
    """It has no /health, and would note each question in its log."""
    time_of: dict[str, Any] = {"at": time.monotonic()}
    wait_until(lambda: time.monotonic() > time_of["at"] + 2.5, "some questions were asked")
    log = up.project.layout.log / "noisy-1.log"
    assert '" 404' not in log.read_text()
    assert "/health" not in log.read_text()
    assert str(REPOSITORY) not in log.read_text()
