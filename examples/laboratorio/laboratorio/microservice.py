"""microservice (5001) and its second replica (5002): flights, and long tasks handed to the worker."""

from typing import Annotated, Any

from fastapi import Body, Query, Response

from escala import Problem, database
from laboratorio import tasks
from laboratorio.caches import flights
from laboratorio.service import REPLICA, Limit, Page, service

app = service("microservice")

Code = Annotated[str | None, Query(pattern="^[A-Za-z0-9]{2,4}$")]

FLIGHTS = """
    select make_date(f.year, f.month, f.day)::text as date, f.carrier, a.name as airline, f.flight, f.tailnum,
           f.origin, o.name as origin_name, f.dest, d.name as dest_name,
           f.sched_dep_time, f.dep_time, f.dep_delay, f.arr_delay, f.distance
    from flights f
    join airlines a using (carrier)
    join airports o on o.faa = f.origin
    left join airports d on d.faa = f.dest
    where f.origin = $1 and ($2::int is null or f.month = $2) and ($3::int is null or f.day = $3)
      and ($4::text is null or f.carrier = $4) and ($5::text is null or f.dest = $5)
    order by f.month, f.day, f.sched_dep_time, f.id
    limit $6 offset $7
"""


@flights.cached(ttl="5m", tags=["flights", "airlines", "airports"])
async def departures(
    origin: str, month: int | None, day: int | None, carrier: str | None, dest: str | None, limit: int, page: int
) -> list[dict[str, Any]]:
    async with database.connection() as connection:
        rows = await connection.fetch(FLIGHTS, origin, month, day, carrier, dest, limit, (page - 1) * limit)
    return [dict(row) for row in rows]


@flights.cached(ttl="5m", tags=["flights", "airlines"])
async def known_codes() -> dict[str, list[str]]:
    """Return the codes that a query may use."""
    async with database.connection() as connection:
        origins = await connection.fetch("select distinct origin as code from flights order by 1")
        carriers = await connection.fetch("select carrier as code from airlines order by 1")
    return {"origin": [r["code"] for r in origins], "carrier": [r["code"] for r in carriers]}


@app.get("/data")
async def data(
    response: Response,
    origin: Annotated[str, Query(pattern="^[A-Za-z0-9]{3,4}$")],
    month: Annotated[int | None, Query(ge=1, le=12)] = None,
    day: Annotated[int | None, Query(ge=1, le=31)] = None,
    carrier: Code = None,
    dest: Code = None,
    limit: Limit = 20,
    page: Page = 1,
) -> dict[str, Any]:
    origin, carrier, dest = origin.upper(), carrier and carrier.upper(), dest and dest.upper()
    known = await known_codes()
    for name, value in (("origin", origin), ("carrier", carrier)):
        if value is not None and value not in known[name]:
            raise Problem(422, f"There are no flights with {name} {value}.", choices=known[name])
    found = await departures.lookup(origin, month, day, carrier, dest, limit, page)
    response.headers["X-Cache"] = found.source
    response.headers["X-Served-By"] = REPLICA
    return {"cache": found.source, "replica": REPLICA, "page": page, "flights": found.value}


@app.post("/longtask", status_code=202)
async def longtask(response: Response, order: Annotated[dict[str, Any], Body()]) -> dict[str, str]:
    """Hand a long task to the worker: {"task": "report", "month": 1}."""
    name = order.pop("task", None)
    task = tasks.BY_NAME.get(name) if isinstance(name, str) else None
    if task is None:
        raise Problem(422, 'The body must name a task: {"task": "..."}.', tasks=sorted(tasks.BY_NAME))
    job = await task.enqueue(**order)
    response.headers["Location"] = f"/jobs/{job.id}"
    return {"job": job.id, "task": job.task, "replica": REPLICA}
