"""The commands `escala jobs ...`."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, TypeVar

import asyncpg
import msgspec
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from escala.cli.support.console import out, print_table
from escala.cli.support.options import File, Settings, open_project
from escala.control.client import Client
from escala.database import Connection, Database
from escala.engines import postgres_engine
from escala.engines.external import External
from escala.errors import ConfigError, EngineFailed, EscalaError
from escala.project.project import Project
from escala.tasks.job import JobRecord
from escala.tasks.store import administration
from escala.tasks.store import jobs as store
from escala.tasks.store.administration import STATES, Search, State, Summary
from escala.units import format_duration

T = TypeVar("T")

jobs = typer.Typer(name="jobs", help="The background jobs of the project.", no_args_is_help=True)

_LOOK_SECONDS = 0.5

Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="The ids of jobs.")]
QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="A queue, as `escala jobs queues` shows it.")]
States = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help=f"Only jobs in this state ({', '.join(STATES)}). May be repeated."),
]
InQueue = Annotated[str | None, typer.Option("--queue", metavar="QUEUE", help="Only jobs of this queue.")]
OfTask = Annotated[str | None, typer.Option("--task", metavar="TASK", help="Only jobs of this task.")]
Most = Annotated[int, typer.Option("--most", metavar="N", help="Stop after so many jobs.", min=1, max=10_000)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Keep showing it until Ctrl-C, or until the job has ended.")]


@jobs.command("list")
def list_(
    state: States = None,
    queue: InQueue = None,
    task: OfTask = None,
    most: Most = 20,
    json: Json = False,
    watch: Watch = False,
    file: File = None,
    settings: Settings = None,
) -> None:
    """List jobs, the latest first."""
    search = Search(states=_states(state), queue=queue, task=task, limit=most)

    async def work(connection: Connection) -> None:
        if json:
            found = await administration.search(connection, search)
            out.print(msgspec.json.encode(found).decode(), markup=False, soft_wrap=True)
        elif watch:
            with Live(console=out, auto_refresh=False) as live:
                while True:
                    live.update(_table(await administration.search(connection, search)), refresh=True)
                    await asyncio.sleep(_LOOK_SECONDS)
        elif found := await administration.search(connection, search):
            print_table(_table(found))
        else:
            out.print("there is no such job" if state or queue or task else "there is no job yet")

    _connected(open_project(file, settings), work)


@jobs.command()
def show(id: Id, json: Json = False, watch: Watch = False, file: File = None, settings: Settings = None) -> None:  # noqa: A002 - Typer names the argument so
    """Show a job: its state, progress, arguments, and its result or error."""

    async def work(connection: Connection) -> None:
        job = _id(id)
        record = await _find(connection, job)
        if watch and record.finished_at is None:
            with Live(console=out, auto_refresh=False, transient=True) as live:
                while record.finished_at is None:
                    live.update(_progress(record), refresh=True)
                    await asyncio.sleep(_LOOK_SECONDS)
                    record = await _find(connection, job)
        if json:
            out.print(msgspec.json.encode(record).decode(), markup=False, soft_wrap=True)
        else:
            print_table(_details(record))

    _connected(open_project(file, settings), work)


@jobs.command()
def retry(ids: Ids, file: File = None, settings: Settings = None) -> None:
    """Let jobs run again that failed or were cancelled, and scheduled ones at once."""

    async def work(connection: Connection) -> list[str]:
        return [each for each in ids if not await administration.retry(connection, _id(each))]

    refused = _connected(open_project(file, settings), work)
    _report(ids, refused, "will run again", "cannot be retried: it waits, runs, succeeded, or does not exist")


@jobs.command()
def cancel(ids: Ids, file: File = None, settings: Settings = None) -> None:
    """Cancel jobs: those that wait at once; those that run are asked to stop."""

    async def work(connection: Connection) -> list[str]:
        return [each for each in ids if await administration.cancel(connection, _id(each)) is None]

    refused = _connected(open_project(file, settings), work)
    _report(ids, refused, "is cancelled, or will be as soon as it stops", "has finished already, or does not exist")


@jobs.command()
def purge(
    state: States = None,
    queue: InQueue = None,
    task: OfTask = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    file: File = None,
    settings: Settings = None,
) -> None:
    """Delete jobs that do not run, with their results. Default: finished ones."""
    project = open_project(file, settings)
    states = _states(state) or ["succeeded", "failed", "cancelled"]
    what = (
        f"all {' and '.join(states)} jobs"
        + (f" of {queue}" if queue else "")
        + (f" of the task {task}" if task else "")
    )
    if not yes:
        typer.confirm(f"Delete {what}?", abort=True)

    async def work(connection: Connection) -> int:
        return await administration.purge(connection, states, queue, task)

    deleted = _connected(project, work)
    out.print(f"deleted {deleted:,} job{'' if deleted == 1 else 's'}", highlight=False)


@jobs.command()
def pause(queue: QueueName, file: File = None, settings: Settings = None) -> None:
    """Let no job of a queue begin until `escala jobs resume`. Those that run are finished."""

    async def work(connection: Connection) -> bool:
        return await administration.pause(connection, queue)

    done = _connected(open_project(file, settings), work)
    out.print(f"{queue} is paused" if done else f"{queue} was paused already", markup=False)


@jobs.command()
def resume(queue: QueueName, file: File = None, settings: Settings = None) -> None:
    """Let the jobs of a paused queue begin again."""

    async def work(connection: Connection) -> bool:
        return await administration.resume(connection, queue)

    done = _connected(open_project(file, settings), work)
    out.print(f"{queue} goes on" if done else f"{queue} was not paused", markup=False)


@jobs.command()
def queues(json: Json = False, file: File = None, settings: Settings = None) -> None:
    """List the queues, with their jobs and workers."""

    async def work(connection: Connection) -> list[administration.Queue]:
        return await administration.queues(connection)

    found = _connected(open_project(file, settings), work)
    if json:
        out.print(msgspec.json.encode([each._asdict() for each in found]).decode(), markup=False, soft_wrap=True)
        return
    if not found:
        out.print("there is no queue yet: no worker runs, and no job waits")
        return
    table = _headed("QUEUE", ">WAITING", ">RUNNING", ">WORKERS", "")
    for each in found:
        counts = [_capped(each.waiting), _capped(each.running), str(each.workers)]
        table.add_row(Text(each.name), *counts, "paused" if each.paused else "")
    print_table(table)


def _table(found: list[Summary]) -> Table:
    table = _headed("ID", "TASK", "QUEUE", "STATE", ">ATTEMPT", ">AGE", "")
    for job in found:
        table.add_row(
            str(job.id),
            Text(job.task),
            Text(job.queue),
            job.state,
            str(job.attempt),
            _age(job.enqueued_at),
            _words(job),
        )
    return table


def _words(job: Summary) -> Text:
    """Return what is to be said of a job: how far it is, or why it failed."""
    if job.state == "running":
        return Text(f"{job.progress:.0%} {job.message}".strip())
    return Text(job.error or "", overflow="ellipsis", no_wrap=True)


def _progress(record: JobRecord) -> RenderableType:
    bar = ProgressBar(total=1.0, completed=record.progress, width=40)
    words = f"{record.state}, attempt {record.attempt}, {record.progress:.0%} {record.message}"
    return Group(Text(words.strip()), bar)


def _details(record: JobRecord) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    facts: dict[str, object] = {
        "id": record.id,
        "task": record.task,
        "queue": record.queue,
        "state": record.state,
        "attempt": record.attempt,
        "progress": f"{record.progress:.0%} {record.message}".strip(),
        "arguments": msgspec.json.encode(record.arguments).decode(),
        "enqueued": f"{_time(record.enqueued_at)}{f' by {record.subject}' if record.subject else ''}",
        "due": _time(record.run_at) if record.state == "scheduled" else None,
        "started": _time(record.started_at),
        "finished": _time(record.finished_at),
        "result": msgspec.json.encode(record.result).decode() if record.state == "succeeded" else None,
        "error": record.error,
        "files": ", ".join(record.files) or None,
    }
    for name, value in facts.items():
        if value is not None:
            table.add_row(name, Text(str(value)))
    return table


def _headed(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading.lstrip(">"), no_wrap=True, justify="right" if heading.startswith(">") else "left")
    return table


def _capped(count: int) -> str:
    return f"{count:,}" if count < store.MOST_COUNTED else f"{count:,}+"


def _age(moment: datetime) -> str:
    return format_duration(max(0.0, time.time() - moment.timestamp()))


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone().isoformat(sep=" ", timespec="seconds") if moment else None


def _states(given: list[str] | None) -> list[State] | None:
    unknown = [each for each in given or () if each not in STATES]
    if unknown:
        raise ConfigError("--state", [f"there is no state {unknown[0]!r}; there are: {', '.join(STATES)}"])
    return msgspec.convert(given, list[State]) if given else None


def _id(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise ConfigError("ID", [f"{text!r} is not the id of a job; `escala jobs list` shows them"]) from None


async def _find(connection: Connection, job: uuid.UUID) -> JobRecord:
    record = await store.find(connection, job)
    if record is None:
        raise EscalaError(f"there is no job {job}; it may have been deleted")
    return record


def _report(ids: list[str], refused: list[str], done: str, why: str) -> None:
    for each in ids:
        if each not in refused:
            out.print(f"{each} {done}", markup=False, highlight=False)
    if refused:
        raise EscalaError("\n".join(f"{each} {why}" for each in refused))


def _connected(project: Project, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Return what `work` returns for a connection to the project's PostgreSQL."""
    engine = postgres_engine(project.config, project.layout)
    if not isinstance(engine, External):
        Client(project).status(brief=True)  # raises NotRunning if it cannot be there

    async def connect() -> T:
        pool = Database(engine.url, size=1)
        await pool.open()
        try:
            async with pool.connection() as connection:
                return await work(connection)
        finally:
            await pool.close()

    try:
        return asyncio.run(connect())
    except asyncpg.UndefinedTableError:
        raise EngineFailed("PostgreSQL", "it has no jobs yet; `escala up` makes their tables") from None
    except KeyboardInterrupt:
        raise typer.Exit from None
