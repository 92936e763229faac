"""The embedded PostgreSQL: crashes, leftovers, and folders its user cannot reach."""

import asyncio
import os
import signal
import stat
import subprocess
from pathlib import Path

import asyncpg
import psutil
import pytest

from escala.engines import postgres_engine, sysuser
from escala.engines.external import External
from escala.engines.postgres import EmbeddedPostgres, probe
from escala.errors import EngineFailed, EngineMissing
from escala.processes.process import Process, has_ended
from escala.project.layout import Layout
from tests.support import eventually, minimal_config, running_engine, start_engine, stop_engine


@pytest.fixture
def layout(folder: Path) -> Layout:
    made = Layout(folder / "s")
    made.create()
    return made


async def ask(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def test_data_survives_a_kill_and_the_leftover_server_is_stopped(layout: Layout) -> None:
    engine = postgres_engine(minimal_config(), layout)
    with running_engine(engine):
        asyncio.run(ask(engine.url, "create table kept (n int)"))
    first = start_engine(engine)
    engine.prepare()  # as after a crash of the supervisor: the server still runs
    assert first.wait(10) == 0
    second = start_engine(engine)
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    engine.prepare()
    third = start_engine(engine)
    assert asyncio.run(ask(engine.url, "select count(*) from kept")) == 0
    stop_engine(engine, third)


def test_a_pid_file_that_names_another_process(layout: Layout) -> None:
    engine = postgres_engine(minimal_config(), layout)
    engine.prepare()
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        (layout.postgres / "data" / "postmaster.pid").write_text(f"{innocent.pid}\n")
        with running_engine(engine):
            assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_half_a_data_folder_is_made_anew(layout: Layout) -> None:
    engine = postgres_engine(minimal_config(), layout)
    layout.postgres.mkdir()
    (layout.postgres / "data.new").mkdir()
    (layout.postgres / "data.new" / "rubbish").touch()
    engine.prepare()
    assert (layout.postgres / "data" / "PG_VERSION").exists()
    assert stat.S_IMODE(layout.postgres.stat().st_mode) == 0o700


def test_data_of_another_version(layout: Layout) -> None:
    engine = postgres_engine(minimal_config(), layout)
    engine.prepare()
    (layout.postgres / "data" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EngineFailed, match="was created by version 17, but the installed wheel is version 18"):
        engine.prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as another user")
def test_a_folder_that_the_server_cannot_reach_is_named(layout: Layout) -> None:
    layout.state.parent.chmod(0o700)
    try:
        with pytest.raises(EngineFailed, match=rf"cannot pass through {layout.state.parent} to its data; set project"):
            postgres_engine(minimal_config(), layout).prepare()
    finally:
        layout.state.parent.chmod(0o711)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as another user")
def test_barriers(folder: Path) -> None:
    user = sysuser.ensure()
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    assert sysuser.barrier(inner / "file", user) is None
    (folder / "a").chmod(0o700)
    assert sysuser.barrier(inner / "file", user) == folder / "a"
    os.chown(folder / "a", user.pw_uid, user.pw_gid)
    assert sysuser.barrier(inner / "file", user) is None


def test_without_the_wheel(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("escala.engines.postgres.wheel_folder", lambda package: None)
    with pytest.raises(EngineMissing, match="pip install"):
        postgres_engine(minimal_config(), layout).prepare()


def test_an_external_one(postgres_url: str, layout: Layout) -> None:
    engine = postgres_engine(minimal_config(engines={"postgres": {"url": "postgresql://x@127.0.0.1:1/x"}}), layout)
    assert isinstance(engine, External)
    assert engine.process() is None
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        asyncio.run(engine.probe())
    asyncio.run(probe(postgres_url))
    with pytest.raises(EngineFailed, match="refuses the connection"):
        asyncio.run(probe(postgres_url.replace("/postgres?", "/absent?")))


def test_it_listens_on_no_tcp_port(layout: Layout) -> None:
    engine = postgres_engine(minimal_config(), layout)
    assert isinstance(engine, EmbeddedPostgres)
    with running_engine(engine):
        assert asyncio.run(ask(engine.url, "show listen_addresses")) == ""


def test_it_accepts_as_many_connections_as_all_replicas_may_hold(layout: Layout) -> None:
    web = {"app": "a:b", "replicas": {"min": 1, "max": 20}}
    spec = postgres_engine(minimal_config(services={"web": web}), layout).process()
    assert spec is not None
    (setting,) = (word for word in spec.argv if word.startswith("max_connections="))
    assert int(setting.partition("=")[2]) >= 21 * 10
    chosen = minimal_config(services={"web": web}, engines={"postgres": {"max_connections": 50}})
    spec = postgres_engine(chosen, layout).process()
    assert spec is not None
    assert "max_connections=50" in spec.argv


def test_the_pid_file_of_a_server_that_cannot_be_examined_stays(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root in a container without SYS_PTRACE: a second server on the same data would be the end of them."""
    engine = postgres_engine(minimal_config(), layout)
    engine.prepare()
    pid_file = layout.postgres / "data" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n")

    def denied(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "cwd", denied)
    monkeypatch.setattr(psutil.Process, "name", lambda process: "postgres")
    with pytest.raises(EngineFailed, match="cannot be examined"):
        engine.prepare()
    assert pid_file.exists()


async def test_killed_at_once_it_takes_its_backends_along(layout: Layout) -> None:
    """Backends have groups of their own, which a SIGKILL for the server's group does not reach."""
    engine = postgres_engine(minimal_config(), layout)
    await asyncio.to_thread(engine.prepare)
    spec = engine.process()
    assert spec is not None
    process = await Process.start(spec, lambda lines: None)

    async def ready() -> bool:
        try:
            await engine.probe()
        except OSError:
            return False
        return True

    await eventually(ready, "it answers")
    connection = await asyncpg.connect(engine.url)
    backend = await connection.fetchval("select pg_backend_pid()")
    await process.end()
    await process.wait()

    async def gone() -> bool:
        return has_ended(backend)

    await eventually(gone, "the backend is gone", 5)
    connection.terminate()
