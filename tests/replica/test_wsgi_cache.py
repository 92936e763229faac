"""A Flask app under Escala uses the cache from its threads, without a lifespan of its own."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx

from escala.processes.ports import free_port
from tests.support import REPOSITORY, wait_until


def test_a_flask_app_caches(valkey_url: str) -> None:
    port = free_port()
    options = ["--root", str(REPOSITORY), "--port", str(port), "--threads", "20"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "escala.replica", "app", "tests.replica.flask_app:app", *options],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "ESCALA_ENGINES__VALKEY__URL": valkey_url},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

            def answers() -> bool:
                try:
                    return client.get("/nothing").status_code == 404
                except httpx.TransportError:
                    return False

            wait_until(answers, "the app answers")
            with ThreadPoolExecutor(20) as pool:
                found = list(pool.map(lambda _: client.get("/7").json(), range(40)))
            assert found == [{"number": 7, "call": 1}] * 40
            assert client.post("/7").status_code == 200
            assert client.get("/7").json() == {"number": 7, "call": 2}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
