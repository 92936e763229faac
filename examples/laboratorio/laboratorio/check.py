"""Calls every part of the running laboratory and reports which checks passed. ``escala demo --check`` runs it.

The exit code is 0 only if every check passed.
"""

import asyncio
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

URL = os.environ["LABORATORIO_URL"]
TOKEN = os.environ["LABORATORIO_TOKEN"]
WORKER = os.environ["LABORATORIO_WORKER"]

_JOB_SECONDS = 60.0


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def call(method: str, path: str, body: Any = None, *, token: str = TOKEN, base: str = URL) -> Answer:
    """Send one request and return the answer, whatever its status."""
    request = urllib.request.Request(base + path, method=method)  # noqa: S310 - our own gateway
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")

    def fetch() -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own gateway
                return Answer(response.status, _lower(response.headers), response.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lower(error.headers), error.read())

    return await asyncio.to_thread(fetch)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def expect(holds: bool, what: object) -> None:
    if not holds:
        raise AssertionError(str(what)[:300])


async def user() -> str:
    header, _, _ = TOKEN.split(".")
    expect(len(header) > 20, "the token is not a JWT")
    keys = await call("GET", "/.well-known/jwks.json", token="")
    expect(keys.status == 200 and len(keys.json["keys"]) == 1, keys)
    return "got a token and the public key that verifies it"


async def api_gateway() -> str:
    without = await call("GET", "/data?origin=JFK", token="")
    expect(without.status == 401 and without.headers["www-authenticate"].startswith("Bearer"), without)
    unknown = await call("GET", "/nowhere")
    expect(unknown.status == 404 and unknown.headers["content-type"] == "application/problem+json", unknown)
    return "401 without a token, 404 for a path without a route"


async def load_balancer() -> str:
    seen = {(await call("GET", f"/data?origin=LGA&page={page}")).json["replica"] for page in range(1, 13)}
    expect(seen == {"microservice/1", "microservice/2"}, seen)
    return "12 requests reached both replicas"


def microservice(number: int) -> Callable[[], Awaitable[str]]:
    async def row() -> str:
        for page in range(1, 20):
            answer = await call("GET", f"/data?origin=JFK&month={number}&page={page}")
            expect(answer.status == 200 and answer.json["flights"][0]["origin_name"] == "John F Kennedy Intl", answer)
            if answer.json["replica"] == f"microservice/{number}":
                return f"flights from {answer.json['flights'][0]['origin_name']} in month {number}"
        raise AssertionError(f"microservice/{number} never answered")

    return row


async def cache() -> str:
    path = f"/data?origin=EWR&month=7&limit={int(time.time()) % 400 + 50}"
    first, second = await call("GET", path), await call("GET", path)
    expect(first.json["cache"] == "loader", first.json["cache"])
    expect(second.json["cache"] in ("l1", "l2"), second.json["cache"])
    expect(first.json["flights"] == second.json["flights"], "the cached answer differs")
    return f"read from the database once, then from {second.json['cache'].upper()}"


async def database() -> str:
    carrier = "Z9"
    await call("DELETE", f"/db/airlines/{carrier}")
    made = await call("POST", "/db/airlines", {"carrier": carrier, "name": "Check Air"})
    expect(made.status == 201 and made.headers["location"] == f"/db/airlines/{carrier}", made)
    read = await call("GET", f"/db/airlines/{carrier}")
    expect(read.json == {"carrier": carrier, "name": "Check Air"}, read)
    original = (await call("GET", "/db/airlines/B6")).json
    renamed = {**original, "name": "Check Airways"}
    path = "/data?origin=JFK&carrier=B6&limit=1"
    await call("GET", path)
    try:
        expect((await call("PUT", "/db/airlines/B6", renamed)).status == 200, "the write was refused")
        shown = (await call("GET", path)).json["flights"][0]["airline"]
        expect(shown == "Check Airways", f"/data still says {shown}")
    finally:
        await call("PUT", "/db/airlines/B6", original)
    expect((await call("DELETE", f"/db/airlines/{carrier}")).status == 204, "the delete was refused")
    return "written, read back, and /data shows the write"


async def analytics() -> str:
    answer = await call("GET", "/analytics?param=delays")
    expect(answer.status == 200 and len(answer.json["rows"]) == 16, answer)
    refused = await call("GET", "/analytics?param=nonsense")
    expect(refused.status == 400 and "delays" in refused.json["choices"], refused)
    return f"{sum(row['flights'] for row in answer.json['rows']):,} flights analysed"


async def worker() -> str:
    health = await call("GET", "/health", base=WORKER, token="")
    expect(health.status == 200, health)
    ordered = await call("POST", "/longtask", {"task": "report", "month": 1})
    expect(ordered.status == 202, ordered)
    job = await _finished(ordered.headers["location"])
    expect(job["state"] == "succeeded", job)
    chart = await call("GET", job["files"]["report.svg"])
    expect(chart.status == 200 and chart.body.startswith(b"<svg"), chart)
    direct = await call("POST", "/task", {"task": "missed_connection", "arguments": {"draws": 20_000}}, base=WORKER)
    expect(direct.status == 202, direct)
    odds = (await _finished(direct.headers["location"]))["result"]
    return f"a report of {job['result']['rows']} rows with its chart; {odds['probability']:.1%} of connections missed"


async def _finished(path: str) -> Any:
    deadline = time.monotonic() + _JOB_SECONDS
    while time.monotonic() < deadline:
        job = (await call("GET", path)).json
        if job["state"] in ("succeeded", "failed"):
            return job
        await asyncio.sleep(0.1)
    raise AssertionError(f"no result of {path} within {_JOB_SECONDS:g} s")


ROWS: list[tuple[str, Callable[[], Awaitable[str]]]] = [
    ("user", user),
    ("api_gateway", api_gateway),
    ("load_balancer", load_balancer),
    ("microservice", microservice(1)),
    ("microservice2", microservice(2)),
    ("cache", cache),
    ("database", database),
    ("analytics", analytics),
    ("worker", worker),
]


async def main() -> int:
    failed = 0
    for name, row in ROWS:
        began = time.perf_counter()
        try:
            verdict, words = "ok", await row()
        except (AssertionError, OSError, KeyError, ValueError, IndexError) as error:
            verdict, words = "FAILED", f"{type(error).__name__}: {error}"
            failed += 1
        print(f"{verdict:<6} {name:<14} {(time.perf_counter() - began) * 1000:6.0f} ms  {words}", flush=True)
    print(f"{'ok' if not failed else 'FAILED':<6} {'star_services':<14} {len(ROWS) - failed} of {len(ROWS)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
