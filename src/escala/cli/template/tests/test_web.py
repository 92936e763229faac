"""The whole system, as clients see it: `pip install httpx pytest`, then `python -m pytest`."""

import json
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

HERE = ["--set", "project.state=.escala-test", "--set", "gateway.bind=127.0.0.1:8765"]


def escala(*words: str) -> str:
    return subprocess.run(["escala", *words, *HERE], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    escala("up", "--detach")
    try:
        token = escala("token").strip()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url="http://127.0.0.1:8765", headers=headers, timeout=10) as client:
            yield client
    finally:
        escala("down")


def test_requests_reach_both_replicas(client: httpx.Client) -> None:
    assert len({client.get("/hello").json()["hello"] for _ in range(20)}) == 2


def test_only_hello_is_public(client: httpx.Client) -> None:
    anonymous = {"Authorization": ""}
    assert client.get("/hello", headers=anonymous).status_code == 200
    assert client.get("/squares/3", headers=anonymous).status_code == 401


def test_squares(client: httpx.Client) -> None:
    assert client.get("/squares/7").json() == {"number": 7, "square": 49}


def test_a_report_is_written(client: httpx.Client) -> None:
    job = client.post("/reports", params={"pages": 2}).json()["job"]
    record: dict[str, object] = {}
    for _ in range(100):
        record = client.get(f"/jobs/{job}").json()
        if record["state"] == "succeeded":
            break
        time.sleep(0.1)
    assert record["state"] == "succeeded", json.dumps(record)
