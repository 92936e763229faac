"""Every way to reach a Valkey: one server, with a user of few rights, over TLS, by sentinels, and a cluster."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import valkey as valkey_client

from escala.cache import Cache, CacheSystem
from escala.cache.valkey.connect import Connector
from escala.engines.valkey import _wheel_binary, probe
from escala.errors import EngineFailed
from escala.gateway.haproxy.self_signed import self_signed
from escala.processes.ports import free_port
from tests.cache.systems import acting_as, client, system, unique
from tests.support import eventually, wait_until

things = Cache("things", jitter=0)


@contextmanager
def server(folder: Path, port: int, *options: str, configuration: str | None = None) -> Iterator[None]:
    """Run a Valkey on a port of loopback."""
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
    if configuration is not None:
        path = folder / f"{port}.conf"
        path.write_text(configuration)
        words = [str(path), *options]
    process = subprocess.Popen([_wheel_binary(), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), f"Valkey answers on {port}")
        yield
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    try:
        return bool(call(port, "PING"))
    except valkey_client.ConnectionError:
        return False


def call(port: int, *command: Any) -> Any:
    with valkey_client.Valkey("127.0.0.1", port) as person:
        return person.execute_command(*command)


async def works(url: str) -> None:
    """Check that two processes share a cache through a URL."""
    await probe(url)
    calls = []

    @things.cached(name=unique(), tags=["t"])
    async def load() -> str:
        calls.append(1)
        return "x"

    async with system(url) as one, system(url) as other:
        assert one.connected
        assert other.connected
        with acting_as(one):
            await load()
        with acting_as(other):

            async def in_l1() -> bool:
                return (await load.lookup()).source == "l1"

            await eventually(in_l1, "it is in the other's L1", 5)
            await things.invalidate("t")
            await things.set("k", "v")
        with acting_as(one):
            await load()
            assert await things.get("k") == "v"
    assert calls == [1, 1]


async def test_a_user_with_few_rights(valkey_url: str) -> None:
    """These are the rights that docs/cache.md names."""
    async with client(valkey_url) as person:
        await person.execute_command(
            *[
                "ACL",
                "SETUSER",
                "app",
                "on",
                ">secret",
                "~escala:{tests}:*",
                "&escala:{tests}:bus",
                "&__redis__:invalidate",
                "-@all",
                "+ping",
                "+time",
                "+client|id",
                "+client|tracking",
                "+subscribe",
                "+publish",
                "+script|load",
                "+evalsha",
                "+get",
                "+mget",
                "+set",
                "+del",
                "+hget",
                "+hmget",
                "+hset",
                "+hdel",
                "+hgetall",
                "+pttl",
                "+pexpire",
                "+expire",
                "+scan",
            ]
        )
        try:
            await works(f"{valkey_url}?username=app&password=secret")
            with pytest.raises(EngineFailed, match="refuses the connection") as failed:
                await probe(f"{valkey_url}?username=app&password=wrong")
            assert "wrong" not in str(failed.value).replace("WRONGPASS", "")
        finally:
            await person.execute_command("ACL", "DELUSER", "app")


@asynccontextmanager
async def tls_before(path: str, certificate: Path) -> AsyncIterator[int]:
    """Accept TLS on a port and hand the bytes to a Unix socket: the wheel's Valkey has no TLS of its own."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    copies: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(path)
        for pair in ((reader, inner_writer), (inner_reader, writer)):
            copies.add(asyncio.create_task(copy(*pair)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await asyncio.wait(copies, timeout=5)


async def test_tls(valkey_url: str, folder: Path) -> None:
    certificate = folder / "localhost.pem"
    certificate.write_text(self_signed(["localhost"], 1))
    async with tls_before(valkey_url.removeprefix("unix://"), certificate) as port:
        await works(f"valkeys://localhost:{port}/0?ssl_ca_certs={certificate}")
        with pytest.raises(ConnectionError, match="certificate verify failed"):
            await probe(f"valkeys://localhost:{port}/0")


def test_a_cluster(folder: Path) -> None:
    port = free_port()
    with server(
        folder,
        port,
        "--cluster-enabled",
        "yes",
        "--cluster-config-file",
        f"{port}.nodes",
        "--cluster-port",
        str(free_port()),
    ):
        call(port, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: b"cluster_state:ok" in call(port, "CLUSTER", "INFO"), "the cluster is complete")
        run(works(f"valkey+cluster://127.0.0.1:1,127.0.0.1:{port}"))


def run(work: Any) -> Any:
    with asyncio.Runner() as runner:
        return runner.run(work)


def test_sentinels_and_a_failover(folder: Path) -> None:
    primary, replica, sentinel = free_port(), free_port(), free_port()
    watched = (
        f"port {sentinel}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {primary} 1\n"
        "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
    )
    with ExitStack() as stack:
        stack.enter_context(server(folder, primary))
        stack.enter_context(server(folder, replica, "--replicaof", "127.0.0.1", str(primary)))
        wait_until(lambda: call(replica, "INFO", "replication")["master_link_status"] == "up", "the replica follows")
        stack.enter_context(server(folder, sentinel, "--sentinel", configuration=watched))
        wait_until(lambda: call(sentinel, "SENTINEL", "REPLICAS", "main"), "the sentinel knows the replica")
        url = f"valkey+sentinel://127.0.0.1:1,127.0.0.1:{sentinel}/main/0"
        run(works(url))
        run(fail_over(url, sentinel, replica))


async def fail_over(url: str, sentinel: int, replica: int) -> None:
    async with system(url) as made:
        with acting_as(made):
            await things.set("a", 1)

            async def failed_over() -> bool:
                try:
                    await asyncio.to_thread(call, sentinel, "SENTINEL", "FAILOVER", "main")
                except valkey_client.ResponseError:
                    return False
                return True

            await eventually(failed_over, "the sentinel agrees")

            async def on_the_other() -> bool:
                return await written_to(made, replica)

            await eventually(on_the_other, "the cache writes to the new primary")


async def written_to(made: CacheSystem, port: int) -> bool:
    try:
        await things.set("b", 2)
    except Exception:
        return False
    role: list[Any] = await asyncio.to_thread(call, port, "ROLE")
    return role[0] == b"master" and bool(await asyncio.to_thread(call, port, "EXISTS", "escala:{tests}:e:things:=b"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("valkey+sentinel://a:1", "ends with the name"),
        ("valkey+cluster://a:x", "'a:x' is not a host with a port"),
        ("valkey+ring://a:1", "neither"),
        ("http://a:1", "scheme"),
    ],
)
async def test_urls_that_cannot_be_read(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Connector(url, "p")
    with pytest.raises(EngineFailed, match=says):
        await probe(url)
