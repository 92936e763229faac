"""A Flask app, plain code throughout, that caches."""

import time

from flask import Flask, jsonify
from flask.wrappers import Response

import escala
from escala import Cache

things = Cache("things")
app = Flask(__name__)
calls: list[int] = []


@things.cached(ttl="60s", tags=["n:{number}"])
def load(number: int) -> dict[str, int]:
    calls.append(number)
    time.sleep(0.2)
    return {"number": number, "call": len(calls)}


@app.get("/<int:number>")
def show(number: int) -> Response:
    return jsonify(load(number))


@app.post("/<int:number>")
def change(number: int) -> str:
    escala.from_thread(things.invalidate("n:{number}", number=number))
    return ""
