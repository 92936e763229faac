"""analytics (5005): questions about all flights, answered by DuckDB over the snapshot, results cached."""

import asyncio
from typing import Any

from fastapi import Response

from escala import Problem
from laboratorio import snapshot
from laboratorio.caches import analytics
from laboratorio.service import REPLICA, service

app = service("analytics")

QUESTIONS = {
    "delays": """
        select carrier, any_value(airline) as airline, count(*) as flights,
               round(avg(dep_delay), 2) as mean_departure_delay, round(avg(arr_delay), 2) as mean_arrival_delay,
               quantile_cont(arr_delay, 0.9)::double as p90_arrival_delay
        from snapshot group by carrier order by mean_arrival_delay desc nulls last
    """,
    "routes": """
        select origin, dest, any_value(dest_name) as dest_name, count(*) as flights,
               count(distinct carrier) as carriers, any_value(distance) as distance,
               round(avg(arr_delay), 2) as mean_arrival_delay
        from snapshot group by origin, dest order by flights desc limit 50
    """,
    "weather": """
        select case when visib < 1 then 'below 1 mile' when visib < 5 then '1 to 5 miles' else '5 miles and more' end
                   as visibility,
               count(*) as flights, round(avg(dep_delay), 2) as mean_departure_delay,
               round(100.0 * count(*) filter (dep_time is null) / count(*), 2) as percent_cancelled
        from snapshot where visib is not null group by 1 order by mean_departure_delay desc
    """,
    "cancellations": """
        select month, count(*) as flights, count(*) filter (dep_time is null) as cancelled,
               round(100.0 * count(*) filter (dep_time is null) / count(*), 2) as percent_cancelled
        from snapshot group by month order by month
    """,
    "hours": """
        select hour, count(*) as flights, round(avg(dep_delay), 2) as mean_departure_delay,
               round(100.0 * count(*) filter (dep_delay > 30) / count(*), 2) as percent_over_30_minutes
        from snapshot group by hour having count(*) > 100 order by hour
    """,
}


@analytics.cached(ttl="1h", tags=["snapshot"])
async def ask(question: str) -> list[dict[str, Any]]:
    return await asyncio.to_thread(_query, QUESTIONS[question])


def _query(sql: str) -> list[dict[str, Any]]:
    with snapshot.connect() as connection:
        connection.execute(f"create view snapshot as select * from read_parquet('{snapshot.path()}')")
        cursor = connection.execute(sql)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@app.get("/analyze")
async def analyze(response: Response, param: str | None = None) -> dict[str, Any]:
    if param not in QUESTIONS:
        what = "The parameter param is missing" if param is None else f"There is no analysis {param[:40]!r}"
        raise Problem(400, f"{what}; choose one.", choices=list(QUESTIONS))
    found = await ask.lookup(param)
    response.headers["X-Cache"] = found.source
    return {"param": param, "cache": found.source, "replica": REPLICA, "rows": found.value}
