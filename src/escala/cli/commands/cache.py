"""The commands `escala cache ...`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.table import Table

from escala.cache import Cache
from escala.cache.valkey import report
from escala.cache.valkey.inspection import Found, Inspection
from escala.cache.valkey.wire import Wire
from escala.cli.support.console import out, print_table
from escala.cli.support.options import File, Settings, open_project
from escala.connections import running
from escala.control.client import Client
from escala.engines import valkey_engine
from escala.engines.external import External
from escala.environment import Environment
from escala.errors import ConfigError, EscalaError
from escala.project.project import Project
from escala.units import format_duration, format_size

T = TypeVar("T")

cache = typer.Typer(name="cache", help="The values that the project's services cache.", no_args_is_help=True)

Name = Annotated[str | None, typer.Argument(metavar="[CACHE]", help="The name of one cache. Default: all.")]
Named = Annotated[str, typer.Argument(metavar="CACHE", help="The cache's name, as in `Cache(name)`.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key, as `escala cache keys` shows it.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Only values with this tag. May be repeated.")
]
Most = Annotated[int, typer.Option("--most", metavar="N", help="Stop after so many keys.", min=1)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@cache.command()
def stats(file: File = None, settings: Settings = None, json: Json = False) -> None:
    """Show what answered lookups, by cache: memory, Valkey or a load. Counts are those of the processes that run."""
    project = open_project(file, settings)

    async def work(wire: Wire) -> list[report.Report]:
        return await report.read(wire, project.name)

    reports = _connected(project, work)
    if json:
        out.print(msgspec.json.encode(reports).decode(), markup=False, soft_wrap=True)
        return
    if not reports:
        out.print("no running process has used a cache yet")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("CACHE", "LOOKUPS", "MEMORY", "VALKEY", "LOADED", "STALE", "LOADS", "FAILED", "INVALIDATIONS"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "CACHE" else "right")
    for name, counts in report.total(reports).items():
        lookups = counts.l1 + counts.l2 + counts.loader
        shares = (f"{count / lookups:.1%}" if lookups else "" for count in (counts.l1, counts.l2, counts.loader))
        rest = (counts.stale, counts.loads, counts.errors, counts.invalidations)
        table.add_row(name, f"{lookups:,}", *shares, *(f"{count:,}" for count in rest))
    print_table(table)
    out.print()
    for each in reports:
        held = f"{each.entries:,} entries in memory, {format_size(each.bytes)}, {each.evictions:,} evicted"
        out.print(f"{each.replica}: {held}", markup=False, highlight=False)


@cache.command()
def keys(name: Name = None, file: File = None, settings: Settings = None, most: Most = 100) -> None:
    """List the keys of the values in Valkey."""
    project = open_project(file, settings)

    async def work(wire: Wire) -> int:
        found = 0
        names: AsyncIterator[str] = Inspection(wire, project.name).keys(name)
        async for key in names:
            if found == most:
                out.print(f"... and more; see them with --most {most * 10}")
                break
            out.print(key, markup=False, highlight=False, soft_wrap=True)
            found += 1
        return found

    if not _connected(project, work):
        out.print(f"there is no value in Valkey{f' of the cache {name}' if name else ''}", markup=False)


@cache.command()
def get(key: Key, file: File = None, settings: Settings = None, json: Json = False) -> None:
    """Show a value in Valkey: as JSON, with the time it has left."""
    project = open_project(file, settings)

    async def work(wire: Wire) -> list[Found]:
        return await Inspection(wire, project.name).get(key)

    found = _connected(project, work)
    if not found:
        raise EscalaError(f"there is no value with the key {key!r}; `escala cache keys` lists those that there are")
    for each in found:
        if not json:
            left = "not fresh" if each.seconds_left <= 0 else f"{format_duration(each.seconds_left)} left"
            out.print(f"{format_size(each.size)}, {left}, {each.state}", style="dim", highlight=False)
        out.print(msgspec.json.encode(each.value, enc_hook=str).decode(), markup=False, soft_wrap=True)


@cache.command()
def clear(name: Named, file: File = None, settings: Settings = None, tags: Tags = None) -> None:
    """Invalidate all values of a cache, or those with a tag, in all replicas."""
    project = open_project(file, settings)
    try:
        named = Cache(name)
    except ValueError as error:
        raise ConfigError("escala cache clear", [str(error)]) from None

    async def work() -> None:
        async with running(Environment(project=project.name, valkey=_url(project))):
            await (named.invalidate(*tags) if tags else named.clear())

    _reachable(project)
    asyncio.run(work())
    what = f"the values with {' or '.join(tags)}" if tags else "all values"
    out.print(f"{what} of {name} are invalid from now on", markup=False)


def _connected(project: Project, work: Callable[[Wire], Awaitable[T]]) -> T:
    """Return what `work` returns for a connection to the project's Valkey."""

    async def connect() -> T:
        async with report.connection(_url(project), project.name, "reading the cache") as wire:
            return await work(wire)

    _reachable(project)
    return asyncio.run(connect())


def _reachable(project: Project) -> None:
    """Raise NotRunning if the project's own Valkey cannot be there."""
    if not isinstance(valkey_engine(project.config, project.layout), External):
        Client(project).status(brief=True)


def _url(project: Project) -> str:
    return valkey_engine(project.config, project.layout).url
