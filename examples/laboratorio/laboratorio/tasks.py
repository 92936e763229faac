"""worker (5006): the long tasks.

Each task imports its dependencies when it runs, because services that only enqueue tasks do not need them.
"""

from typing import Annotated, Any

import msgspec

from escala import database, task
from escala.tasks import File, Output, Task, progress
from laboratorio.caches import analytics

Month = Annotated[int, msgspec.Meta(ge=1, le=12)]
Airport = Annotated[str, msgspec.Meta(pattern="^[A-Z0-9]{3}$")]
Minutes = Annotated[int, msgspec.Meta(ge=0, le=24 * 60)]
Draws = Annotated[int, msgspec.Meta(ge=1_000, le=20_000_000)]


@task(retries=2, timeout="5m")
async def report(month: Month | None = None) -> Output:
    """Report the delays per carrier and month, as CSV and as a chart."""
    from laboratorio import charts

    months = [month] if month else list(range(1, 13))
    rows: list[dict[str, Any]] = []
    async with database.connection() as connection:
        for done, current in enumerate(months):
            progress(done / len(months), f"month {current}")
            found = await connection.fetch(
                """
                select a.name as airline, f.carrier, f.month, count(*) as flights,
                       count(*) filter (where dep_time is null) as cancelled,
                       round(avg(dep_delay), 2)::float8 as mean_departure_delay,
                       round(avg(arr_delay), 2)::float8 as mean_arrival_delay,
                       percentile_cont(0.9) within group (order by arr_delay) as p90_arrival_delay
                from flights f join airlines a using (carrier)
                where f.month = $1 group by 1, 2, 3 order by 2
                """,
                current,
            )
            rows += [dict(row) for row in found]
    progress(1.0, "drawing")
    files = (
        File("report.csv", "text/csv", charts.csv_of(rows).encode()),
        File("report.svg", "image/svg+xml", charts.delay_chart(rows).encode()),
    )
    return Output({"rows": len(rows), "months": months}, files)


@task(retries=1, timeout="5m")
async def missed_connection(
    origin: Airport = "JFK",
    dest: Airport = "ORD",
    layover: Minutes = 60,
    walk: Minutes = 20,
    draws: Draws = 200_000,
) -> dict[str, Any]:
    """Estimate how likely a connection at `dest` is missed, by drawing from real delays. Times are in minutes."""
    import asyncio

    from laboratorio import simulation

    async with database.connection() as connection:
        arrivals = await connection.fetch(
            "select arr_delay from flights where origin = $1 and dest = $2 and arr_delay is not null", origin, dest
        )
        departures = await connection.fetch("select dep_delay from flights where dep_delay is not null limit 50000")
    if not arrivals:
        raise ValueError(f"no flight went from {origin} to {dest}")
    late_in, late_out = [row[0] for row in arrivals], [row[0] for row in departures]
    estimate = await asyncio.to_thread(simulation.missed_connection, late_in, late_out, layover - walk, draws, progress)
    return {"origin": origin, "dest": dest, "layover": layover, "walk": walk, "flights": len(late_in), **estimate}


@task(retries=2, timeout="5m")
async def refresh_analytics() -> dict[str, Any]:
    """Rebuild the analytics snapshot from the current database."""
    import asyncio
    import tempfile
    from pathlib import Path

    from laboratorio import snapshot

    with tempfile.TemporaryDirectory(prefix="laboratorio-") as folder:
        sources = {}
        async with database.connection() as connection, connection.transaction(isolation="repeatable_read"):
            for done, table in enumerate(snapshot.TABLES):
                progress(0.7 * done / len(snapshot.TABLES), f"reading {table}")
                file = Path(folder) / f"{table}.csv"
                await connection.copy_from_table(table, output=file, format="csv", header=True)
                sources[table] = f"read_csv('{file}', header = true)"
        progress(0.7, "writing the snapshot")
        rows = await asyncio.to_thread(snapshot.build, sources)
    await analytics.invalidate("snapshot")
    return {"rows": rows}


BY_NAME: dict[str, Task[..., Any]] = {
    "report": report,
    "missed_connection": missed_connection,
    "refresh_analytics": refresh_analytics,
}
