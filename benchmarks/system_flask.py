"""The reference's own form: a Flask gateway that checks the token and forwards to Flask microservices with `requests`.

Each is a gunicorn process with threads. The microservices keep answers in a dict, as the reference's local cache does.
ROLE is gateway or microservice.
"""

import asyncio
import itertools
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import requests
from flask import Flask, Response, jsonify, request

from laboratorio.microservice import FLIGHTS

TTL = 300
app = Flask(__name__)
held: dict[str, tuple[float, Any]] = {}
sessions = threading.local()


def microservice() -> Response:
    key = request.query_string.decode()
    found = held.get(key)
    if found is None or found[0] < time.monotonic():
        found = (time.monotonic() + TTL, asyncio.run(_load(request.args["origin"], int(request.args["month"]))))
        held[key] = found
    return jsonify({"flights": found[1]})


async def _load(origin: str, month: int) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(os.environ["POSTGRES"])
    try:
        rows = await connection.fetch(FLIGHTS, origin, month, None, None, None, 20, 0)
        return [dict(row) for row in rows]
    finally:
        await connection.close()


def gateway() -> Response | tuple[str, int]:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    try:
        jwt.decode(token, KEY, algorithms=["RS256"], audience=os.environ["AUDIENCE"], issuer=os.environ["ISSUER"])
    except jwt.InvalidTokenError as error:
        return str(error), 401
    if not hasattr(sessions, "session"):
        sessions.session = requests.Session()  # keeps connections open
    answer = sessions.session.get(f"{next(UPSTREAMS)}/data?{request.query_string.decode()}")
    return Response(answer.content, answer.status_code, mimetype="application/json")


if os.environ["ROLE"] == "gateway":
    KEY = jwt.PyJWK(json.loads(Path(os.environ["JWKS"]).read_text())["keys"][0]).key
    UPSTREAMS = itertools.cycle(os.environ["UPSTREAMS"].split())
    app.get("/data")(gateway)
else:
    app.get("/data")(microservice)
