"""The laboratory's `/data` as a careful developer writes it without Escala: FastAPI, asyncpg, redis-py, PyJWT.

The endpoint, its checks and its SQL are the laboratory's own. What differs is what Escala does for it: the token is
checked by PyJWT, and answers are kept in Redis as JSON.
"""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import jwt
import redis.asyncio
from fastapi import Depends, FastAPI, HTTPException, Query, Request

from laboratorio.microservice import FLIGHTS

TTL = 300
KEY = jwt.PyJWK(json.loads(Path(os.environ["JWKS"]).read_text())["keys"][0]).key

pool: Any = None
cache: Any = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    global pool, cache
    pool = await asyncpg.create_pool(os.environ["POSTGRES"], min_size=1, max_size=10)
    cache = redis.asyncio.Redis.from_url(os.environ["REDIS"])
    yield
    await cache.aclose()
    await pool.close()


app = FastAPI(lifespan=lifespan)
Code = Annotated[str | None, Query(pattern="^[A-Za-z0-9]{2,4}$")]


def user(request: Request) -> str:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    try:
        claims = jwt.decode(
            token, KEY, algorithms=["RS256"], audience=os.environ["AUDIENCE"], issuer=os.environ["ISSUER"]
        )
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, str(error)) from None
    return str(claims["sub"])


async def cached(key: str, load: Callable[[], Awaitable[Any]]) -> Any:
    found = await cache.get(key)
    if found is not None:
        return json.loads(found)
    value = await load()
    await cache.set(key, json.dumps(value), ex=TTL)
    return value


async def known_codes() -> Any:
    async def load() -> Any:
        origins = await pool.fetch("select distinct origin as code from flights order by 1")
        carriers = await pool.fetch("select carrier as code from airlines order by 1")
        return {"origin": [r["code"] for r in origins], "carrier": [r["code"] for r in carriers]}

    return await cached("byhand:codes", load)


@app.get("/data")
async def data(
    who: Annotated[str, Depends(user)],
    origin: Annotated[str, Query(pattern="^[A-Za-z0-9]{3,4}$")],
    month: Annotated[int | None, Query(ge=1, le=12)] = None,
    day: Annotated[int | None, Query(ge=1, le=31)] = None,
    carrier: Code = None,
    dest: Code = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> dict[str, Any]:
    known = await known_codes()
    for name, value in (("origin", origin), ("carrier", carrier)):
        if value is not None and value not in known[name]:
            raise HTTPException(422, f"There are no flights with {name} {value}.")

    async def load() -> Any:
        rows = await pool.fetch(FLIGHTS, origin, month, day, carrier, dest, limit, (page - 1) * limit)
        return [dict(row) for row in rows]

    flights = await cached(f"byhand:{origin}:{month}:{day}:{carrier}:{dest}:{limit}:{page}", load)
    return {"page": page, "flights": flights}
