"""The embedded PostgreSQL: crashes, leftovers, and folders its user cannot reach."""

import asyncio
import os
import signal
import stat
import subprocess
from pathlib import Path

import asyncpg
import pytest

from escala.engines import postgres_engine, sysuser
from escala.engines.external import External
from escala.engines.postgres import EmbeddedPostgres, probe
from escala.errors import EngineFailed, EngineMissing
from escala.project.layout import Layout
from tests.support import minimal_config, running_engine, start_engine, stop_engine


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
    with pytest.raises(EngineFailed, match="was made by version 17, the installed wheel is version 18"):
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
