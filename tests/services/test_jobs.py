"""/jobs: who sees what, lists and pages, cancelling, retrying and events."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from escala import auth, task
from escala.auth.jwks import JwksFile
from escala.auth.key_store import KeyStore
from escala.auth.tokens import Issuer, Verifier
from escala.database import Connection, Database
from escala.http import problem
from escala.project.layout import Layout
from escala.replica.middleware.trace import Trace
from escala.services import jobs
from escala.tasks.store import administration
from escala.tasks.store import attempts as store
from escala.tasks.store.attempts import Told
from tests.queue import connected, connection, empty_queue, new_worker, pool
from tests.tasks.store.support import claim, failure, success

__all__ = ["connected", "connection", "empty_queue", "pool"]

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@task(queue="q")
async def work(number: int = 1) -> int:
    return number


async def enqueue(request: Request) -> Response:
    return PlainTextResponse((await work.enqueue(1)).id)


@pytest.fixture(scope="module")
def issuer(session_folder: Path) -> Issuer:
    return Issuer(KeyStore(Layout(session_folder / "jobs")).signing_key(), "shop", "shop")


Client = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def client(issuer: Issuer, session_folder: Path, connected: Database) -> AsyncIterator[Client]:
    app = Starlette(routes=[Route("/enqueue", enqueue), *jobs.routes], exception_handlers=problem.handlers())
    app.add_middleware(
        auth.Middleware, verifier=Verifier(JwksFile(Layout(session_folder / "jobs").jwks), "shop", "shop"), public=()
    )
    made: list[httpx.AsyncClient] = []

    def new(subject: str, *scopes: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {issuer.issue(subject, scopes)}"}
        transport = httpx.ASGITransport(Trace(app))
        made.append(httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers))
        return made[-1]

    yield new
    for each in made:
        await each.aclose()


async def test_a_caller_sees_own_jobs_and_a_scope_all(client: Client) -> None:
    ana, ben, admin = client("ana"), client("ben"), client("root", "jobs")
    mine = (await ana.get("/enqueue", headers={"traceparent": TRACE})).text
    other = (await ben.get("/enqueue")).text
    script = (await work.enqueue()).id
    assert (await ana.get(f"/jobs/{mine}")).json()["subject"] == "ana"
    assert [job["id"] for job in (await ana.get("/jobs")).json()["jobs"]] == [mine]
    assert [job["id"] for job in (await admin.get("/jobs")).json()["jobs"]] == [script, other, mine]
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/retry"), ("GET", "/files/a")):
        assert (await ana.request(method, f"/jobs/{other}{path}")).status_code == 404
    assert (await admin.get(f"/jobs/{other}")).status_code == 200
    assert (await ana.get(f"/jobs/{script}")).status_code == 200  # ids cannot be guessed
    assert (await ana.get("/jobs/none")).status_code == 404
    assert (await ana.get(f"/jobs/{uuid.uuid4()}")).status_code == 404


async def test_the_trace_of_the_request(client: Client, connection: Connection) -> None:
    await client("ana").get("/enqueue", headers={"traceparent": TRACE})
    await client("ana").get("/enqueue", headers={"traceparent": "nonsense"})
    await client("ana").get("/enqueue")
    assert [row[0] for row in await connection.fetch("select trace from escala.job order by seq")] == [
        TRACE,
        None,
        None,
    ]


async def test_lists_and_pages(client: Client, connection: Connection) -> None:
    admin = client("root", "jobs")
    made = [job.id for job in await work.enqueue_many([{"number": n} for n in range(7)])]
    owner = await new_worker(connection)
    first, second, third = await claim(connection, owner, most=3)
    await store.finish(connection, owner, [success(first), failure(second, "no")])
    await work.with_options(after="1h").enqueue()
    await work.with_options(queue="other").enqueue()

    async def ids(query: str) -> list[str]:
        answer = await admin.get(f"/jobs{query}")
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.json()["jobs"]]

    assert await ids("?state=succeeded") == [str(first.id)]
    assert await ids("?state=failed&state=running") == [str(third.id), str(second.id)]
    assert await ids("?state=waiting&queue=q") == made[:2:-1]
    assert len(await ids("?state=scheduled")) == 1
    assert len(await ids("?queue=other")) == 1
    assert len(await ids(f"?task={work.name}")) == 9
    assert await ids("?task=none") == []
    assert await ids("?since=2100-01-01T00:00:00Z") == []
    assert len(await ids("?until=2100-01-01T00:00:00Z&since=2000-01-01T00:00:00Z")) == 9
    pages, path = [], "/jobs?limit=4"
    while path:
        answer = (await admin.get(path)).json()
        pages.append([job["id"] for job in answer["jobs"]])
        path = answer["next"]
    assert [len(page) for page in pages] == [4, 4, 1]
    assert [job for page in pages for job in page] == await ids("?limit=500")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("state=ready", "Invalid enum value 'ready'"),
        ("limit=0", "from 1 to 500"),
        ("limit=x", "limit"),
        ("before=x", "before"),
        ("since=2026-01-01T00:00:00", "time zone"),
        ("queue=a&queue=b", "given twice"),
        ("colour=red", "colour"),
        ("task=%00", "NUL"),
    ],
)
async def test_queries_that_are_not_understood(client: Client, query: str, words: str) -> None:
    answer = await client("ana").get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert words in answer.text


async def test_nobody_lists_the_jobs_of_another(client: Client) -> None:
    await client("ben").get("/enqueue")
    assert (await client("ana").get("/jobs?subject=ben")).json()["jobs"] == []


async def test_cancelling(client: Client, connection: Connection) -> None:
    ana = client("ana")
    waits, runs = (await ana.get("/enqueue")).text, (await ana.get("/enqueue")).text
    await connection.execute("update escala.job set state = 'scheduled' where id = $1", uuid.UUID(waits))
    owner = await new_worker(connection)
    [running] = await claim(connection, owner)
    assert str(running.id) == runs
    answer = await ana.delete(f"/jobs/{waits}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert (await ana.get(f"/jobs/{waits}")).json()["error"] == "it was cancelled before it ran"
    answer = await ana.delete(f"/jobs/{runs}")
    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    assert [row.cancelled for row in await store.held(connection, owner, [running.id])] == [True]
    answer = await ana.delete(f"/jobs/{waits}")
    assert answer.status_code == 409


async def test_retrying(client: Client, connection: Connection) -> None:
    ana = client("ana")
    job = (await ana.get("/enqueue")).text
    assert (await ana.post(f"/jobs/{job}/retry")).status_code == 409
    owner = await new_worker(connection)
    [claimed] = await claim(connection, owner)
    await store.finish(connection, owner, [failure(claimed, "no")])
    answer = await ana.post(f"/jobs/{job}/retry")
    assert (answer.status_code, answer.headers["location"]) == (202, f"/jobs/{job}")
    [again] = await claim(connection, owner)
    assert (again.id, again.attempt, again.failures) == (claimed.id, 2, 0)
    await store.finish(connection, owner, [success(again)])
    assert (await ana.post(f"/jobs/{job}/retry")).status_code == 409
    later = await work.with_options(after="1h").enqueue()
    assert (await ana.post(f"/jobs/{later.id}/retry")).status_code == 202
    assert (await ana.get(f"/jobs/{later.id}")).json()["state"] == "waiting"


async def test_events(client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change is told once, and the stream ends with the job."""
    looks: asyncio.Queue[None] = asyncio.Queue()
    watch = administration.watch

    async def counted(*arguments: Any) -> Any:
        found = await watch(*arguments)
        looks.put_nowait(None)
        return found

    async def two_looks() -> None:
        """The second one began after this call."""
        while not looks.empty():
            looks.get_nowait()
        for _ in range(2):
            await looks.get()

    monkeypatch.setattr(administration, "watch", counted)
    ana = client("ana")
    job = (await ana.get("/enqueue")).text
    reading = asyncio.create_task(ana.get(f"/jobs/{job}/events", timeout=30))
    owner = await new_worker(connection)

    await two_looks()
    [claimed] = await claim(connection, owner)
    await two_looks()
    await store.tell(connection, owner, [Told(claimed.id, 1, 0.5, "half")])
    await two_looks()
    await store.finish(connection, owner, [success(claimed)])
    answer = await reading
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    told = [(kind, msgspec.json.decode(data.removeprefix("data: "))) for kind, data in events]
    assert [(kind, data["state"], data["progress"]) for kind, data in told] == [
        ("event: state", "waiting", 0),
        ("event: state", "running", 0),
        ("event: progress", "running", 0.5),
        ("event: state", "succeeded", 1),
    ]


async def test_events_of_a_job_that_is_deleted_end(client: Client, connection: Connection) -> None:
    ana = client("ana")
    job = (await ana.get("/enqueue")).text
    reading = asyncio.create_task(ana.get(f"/jobs/{job}/events", timeout=30))
    await asyncio.sleep(0.2)
    assert await administration.purge(connection, ["waiting"]) == 1
    assert (await reading).status_code in (200, 404)


async def test_queues(connection: Connection, connected: Database) -> None:
    await work.enqueue()
    await new_worker(connection)
    assert await administration.pause(connection, "mail")
    assert not await administration.pause(connection, "mail")
    assert [tuple(queue) for queue in await administration.queues(connection)] == [
        ("mail", 0, 0, 0, True),
        ("q", 1, 0, 1, False),
    ]
    assert await administration.pause(connection, "q")
    owner = await new_worker(connection)
    assert await claim(connection, owner) == []
    assert await administration.resume(connection, "q")
    assert not await administration.resume(connection, "q")
    assert len(await claim(connection, owner)) == 1


async def test_purging(connection: Connection, connected: Database) -> None:
    """What runs is left alone."""
    await work.enqueue_many([{"number": n} for n in range(6)])
    owner = await new_worker(connection)
    claimed = await claim(connection, owner, most=3)
    await store.finish(connection, owner, [success(claimed[0]), failure(claimed[1], "no")])
    assert await administration.purge(connection, ["failed"], queue="other") == 0
    assert await administration.purge(connection, ["failed"], task=work.name) == 1
    assert await administration.purge(connection, list(administration.STATES)) == 4
    rows = await connection.fetch("select state from escala.job union all select state from escala.finished_job")
    assert [row[0] for row in rows] == ["running"]
