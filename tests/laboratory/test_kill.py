"""A replica killed under load; one failed request fails the test. `make chaos` runs the long form."""

import os
import signal
import threading
from collections.abc import Callable

import httpx

from tests.support import Up, client, wait_until

CLIENTS = 8
KILLS = int(os.environ.get("CHAOS_KILLS", "3"))


def test_killing_a_replica_fails_no_request(laboratory: Up, tokens: Callable[..., str]) -> None:
    stop = threading.Event()
    failures: list[str] = []
    answered = [0] * CLIENTS
    token = tokens()

    def load(number: int) -> None:
        with client(laboratory.url, token) as http:
            while not stop.is_set():
                try:
                    answer = http.get("/data?origin=JFK&month=3&limit=20")
                except httpx.HTTPError as error:
                    failures.append(repr(error))
                else:
                    if answer.status_code != 200 or len(answer.json()["flights"]) != 20:
                        failures.append(f"{answer.status_code} {answer.text[:200]}")
                answered[number] += 1

    def served(more: int) -> None:
        goal = sum(answered) + more
        wait_until(lambda: sum(answered) >= goal, f"{more} more requests are answered")

    threads = [threading.Thread(target=load, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        for kill in range(KILLS):
            served(200)
            victim = laboratory.replicas("microservice")[kill % 2]
            os.kill(victim["pid"], signal.SIGKILL)

            def back(name: str = victim["replica"], pid: int = victim["pid"]) -> bool:
                now = next(p for p in laboratory.replicas("microservice") if p["replica"] == name)
                return bool(now["state"] == "serving" and now["pid"] not in (None, pid))

            wait_until(back, "the replica is back", 60)  # each early death doubles the pause before the next start
        served(200)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_service_without_a_replica_is_503_at_once(laboratory: Up, tokens: Callable[..., str]) -> None:
    """Analytics has one replica. While it is away the answer is a problem document, and then it is back."""
    (victim,) = laboratory.replicas("analytics")
    with client(laboratory.url, tokens()) as http:
        os.kill(victim["pid"], signal.SIGKILL)
        wait_until(lambda: laboratory.replicas("analytics")[0]["state"] != "serving", "the death is noticed", 5)
        refusals: list[httpx.Response] = []

        def back() -> bool:
            answer = http.get("/analytics?param=delays")
            if answer.status_code != 200:
                refusals.append(answer)
            return answer.status_code == 200

        wait_until(back, "analytics is back")
    assert refusals, "it was never away"
    for refusal in refusals:
        assert refusal.status_code == 503
        assert refusal.headers["content-type"] == "application/problem+json"
        assert refusal.headers["retry-after"] == "1"
        assert refusal.json()["request_id"] == refusal.headers["x-request-id"]
        assert refusal.elapsed.total_seconds() < 1
