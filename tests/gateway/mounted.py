"""Apps that stand below a prefix: FastAPI, Flask, and one that answers with headers as it is told."""

import os
import sys
import time
from collections.abc import Iterator

import flask
from fastapi import FastAPI, Request, Response, WebSocket

fast = FastAPI()


@fast.get("/me")
async def me(request: Request) -> dict[str, str]:
    return {"url": str(request.url_for("me")), "path": request.url.path, "root": request.scope["root_path"]}


@fast.get("/answer")
async def answer(request: Request) -> Response:
    """Answer with the headers that the query says."""
    made = Response("ok")
    for name, value in request.query_params.multi_items():
        made.headers.append(name, value)
    return made


@fast.get("/status/{status}")
async def status(status: int) -> Response:
    return Response(status_code=status)


@fast.websocket("/talk")
async def talk(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(f"{os.environ['ESCALA_REPLICA']} {text}")


wsgi = flask.Flask(__name__)


@wsgi.get("/me")
def flask_me() -> dict[str, str]:
    return {"url": flask.url_for("flask_me"), "full": flask.url_for("flask_me", _external=True)}


@wsgi.get("/sleep")
def sleep() -> str:
    time.sleep(float(flask.request.args["seconds"]))
    return os.environ["ESCALA_REPLICA"]


@wsgi.post("/count")
def count() -> str:
    return str(len(flask.request.get_data()))


@wsgi.get("/forever")
def forever() -> flask.Response:
    def generate() -> Iterator[bytes]:
        while True:
            yield b"data: x\n\n"
            time.sleep(0.02)

    return flask.Response(generate(), mimetype="text/event-stream")


if __name__ == "__main__":
    sys.exit("for the tests of the gateway")
