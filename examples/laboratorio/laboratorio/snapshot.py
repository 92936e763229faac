"""The analytics snapshot: one wide Parquet file, built from the five tables and replaced atomically."""

import os
from collections.abc import Mapping
from pathlib import Path

import duckdb

from escala.environment import Environment

TABLES = ("airlines", "airports", "planes", "weather", "flights")
PACKAGED = Path(__file__).parents[1] / "data"

_WIDE = """
    select f.*, a.name as airline, o.name as origin_name, d.name as dest_name,
           w.temp, w.wind_speed, w.visib, w.precip
    from flights f
    left join airlines a using (carrier)
    left join airports o on o.faa = f.origin
    left join airports d on d.faa = f.dest
    left join weather w on (w.origin, w.year, w.month, w.day, w.hour) = (f.origin, f.year, f.month, f.day, f.hour)
"""


def path() -> Path:
    return Path(Environment.read().data) / "flights-snapshot.parquet"


def connect() -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection with limited threads and memory, so that other processes are not slowed down."""
    return duckdb.connect(config={"threads": 2, "memory_limit": "512MB"})


def build(sources: Mapping[str, str]) -> int:
    """Write the snapshot and return its number of rows. `sources` has a DuckDB table expression for each table."""
    target = path()
    fresh = target.with_suffix(f".{os.getpid()}")
    with connect() as connection:
        for table, source in sources.items():
            connection.execute(f"create view {table} as select * from {source}")
        connection.execute(f"copy ({_WIDE}) to '{fresh}' (format parquet, compression zstd)")
        rows = connection.execute("select count(*) from flights").fetchall()[0][0]
    fresh.replace(target)
    return int(rows)


def build_from_package() -> int:
    return build({table: f"read_parquet('{PACKAGED / table}.parquet')" for table in TABLES})
