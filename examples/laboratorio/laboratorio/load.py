"""Loads the tables on the first start, in one transaction: ``python -m laboratorio.load``."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from escala.environment import Environment
from laboratorio import snapshot

_CHUNK = 512 * 1024
_HERE = Path(__file__).parent


async def main() -> None:
    connection = await asyncpg.connect(Environment.read().postgres)
    try:
        if await connection.fetchval("select to_regclass('public.flights') is null"):
            await _load(connection)
    finally:
        await connection.close()
    if not snapshot.path().exists():
        snapshot.build_from_package()


async def _load(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    columns = (TextColumn("loading {task.description:<9}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="laboratorio-") as folder, Progress(*columns) as progress:
        files = _as_csv(Path(folder))
        total = sum(file.stat().st_size for file in files.values())
        bar = progress.add_task("tables", total=total)
        async with connection.transaction():
            await connection.execute((_HERE / "schema.sql").read_text())
            for table, file in files.items():
                progress.update(bar, description=table)
                with file.open() as lines:
                    names = lines.readline().strip().split(",")
                await connection.copy_to_table(
                    table,
                    source=_chunks(file, lambda size: progress.advance(bar, size)),
                    columns=names,
                    format="csv",
                    header=True,
                )
            progress.update(bar, description="keys")
            await connection.execute((_HERE / "constraints.sql").read_text())


def _as_csv(folder: Path) -> dict[str, Path]:
    """Convert the Parquet files to CSV files, which PostgreSQL's COPY can read."""
    files = {}
    with snapshot.connect() as reader:
        for table in snapshot.TABLES:
            files[table] = folder / f"{table}.csv"
            reader.execute(f"copy (from '{snapshot.PACKAGED / table}.parquet') to '{files[table]}' (header)")
    return files


async def _chunks(file: Path, advance: Callable[[int], None]) -> AsyncIterator[bytes]:
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            yield chunk
            advance(len(chunk))


if __name__ == "__main__":
    asyncio.run(main())
