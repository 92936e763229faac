"""The app of `benchmarks.wsgi`: a small JSON answer, and a stream."""

from collections.abc import Iterator

import flask

app = flask.Flask(__name__)


@app.get("/small")
def small() -> dict[str, object]:
    return {"flights": [{"from": "JFK", "to": "LAX", "delay": 12}], "n": 1}


@app.get("/stream")
def stream() -> flask.Response:
    def blocks() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 1000

    return flask.Response(blocks(), mimetype="text/plain")
