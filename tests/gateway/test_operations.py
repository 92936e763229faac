"""A running gateway changed: replicas, routes, keys, certificates, revocations. Under requests, and none fails."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from escala.gateway.haproxy.runtime_api import RuntimeApi
from escala.gateway.haproxy.self_signed import self_signed
from escala.processes.ports import free_port
from tests.load import Load, no_failure, run, token_of
from tests.support import REPOSITORY, Up, client, escala, wait_until

PROJECT = """
[project]
name = "ops"

[gateway]
bind = "127.0.0.1:{port}"

[services.web]
app = "tests.gateway.app:app"
replicas = 2
routes = ["/echo", "/slow", {{ path = "/apart", to = "/echo", balance = {{ queue = 100 }} }}]
rollout = {{ settle = "100ms" }}
"""


@pytest.fixture
def ops(folder: Path, seed: Callable[[Path], Path]) -> Iterator[Up]:
    home = folder / "a (copy); #1"  # whatever a folder is called
    home.mkdir(mode=0o711)
    seed(home)
    (home / "escala.toml").write_text(PROJECT.format(port=free_port()))
    with Up(home / "escala.toml", environ={"PYTHONPATH": str(REPOSITORY)}) as up:
        yield up.wait_open()


def test_scaling_fails_no_request(ops: Up) -> None:
    with no_failure(ops, path="/slow?seconds=0.3", clients=8) as load:
        assert "web: 5 ready" in run(ops, "scale", "web=5")
        wait_until(lambda: len(load.replicas) == 5, "all five answer")
        assert "web: 1 ready" in run(ops, "scale", "web=1")
        assert len(ops.replicas("web")) == 1
        load.more(10)
    assert ops.said().count("was removed; it took") == 4


def test_a_route_with_a_balance_of_its_own_reaches_the_same_replicas(ops: Up) -> None:
    with no_failure(ops, path="/apart") as load:
        run(ops, "scale", "web=3")
        wait_until(lambda: len(load.replicas) == 3, "all three answer")
        run(ops, "drain", "web/1")
        load.more(20)
        load.replicas.clear()
        load.more(100)
        assert load.replicas.keys() == {"web/2", "web/3"}
        run(ops, "drain", "web/1", "--resume")
        before = ops.replicas("web")[1]
        os.kill(before["pid"], signal.SIGKILL)
        wait_until(lambda: ops.replicas("web")[1]["pid"] not in {None, before["pid"]}, "it is started again")
        load.replicas.clear()
        wait_until(lambda: len(load.replicas) == 3, "all three answer again")
        run(ops, "scale", "web=1")
        wait_until(lambda: servers(ops, "web") == servers(ops, "web:1") == ["1", "none"], "HAProxy forgets the others")
        change(ops, "queue = 100", "queue = 50")
        assert "routes[/apart].balance.queue = 100 → 50" in run(ops, "apply")
        run(ops, "scale", "web=2")
        load.replicas.clear()
        wait_until(lambda: len(load.replicas) == 2, "both answer after a reload")
    assert "HAProxy did not accept" not in ops.said()


def test_a_cookie_keeps_a_replica_that_came_later(ops: Up) -> None:
    change(ops, "replicas = 2", 'replicas = 2\nbalance = { sticky = "home", algorithm = "roundrobin" }')
    run(ops, "apply")
    run(ops, "scale", "web=3")
    homes = set()
    token = token_of(ops)
    for _ in range(12):
        with client(ops.url, token) as browser:
            replicas = {browser.get("/echo").json()["replica"] for _ in range(5)}
            assert len(replicas) == 1
            homes |= replicas
    assert len(homes) == 3


def test_ports_of_their_own_and_back_fail_no_request(ops: Up) -> None:
    pinned = [free_port(), free_port()]
    with no_failure(ops) as load:
        change(ops, "replicas = 2", f"replicas = 2\nports = {pinned}")
        run(ops, "apply")
        assert [each["address"] for each in ops.replicas("web")] == [f"127.0.0.1:{port}" for port in pinned]
        load.more(50)
        change(ops, f"\nports = {pinned}", "")
        run(ops, "apply")
        assert all(each["address"].startswith("unix:") for each in ops.replicas("web"))
        load.more(50)
    left = {path.name for path in ops.project.layout.run.glob("web.*.sock")}
    assert left == {f"web.{each['replica']}.sock" for each in ops.replicas("web")}


def servers(up: Up, lane: str) -> list[str]:
    """Return the names of the servers that HAProxy has in a backend."""
    state = asyncio.run(RuntimeApi(up.project.layout.run / "master.sock").command(f"show servers state {lane}"))
    return sorted(row.split()[3] for row in state.splitlines() if row and row[0].isdigit() and " " in row)


def test_wrong_scales(gate: Up) -> None:
    for words, code, message in (
        (["nobody=2"], 1, "there is no service 'nobody'; there are: web,"),
        (["web=0"], 1, "from 1 to 256"),
        (["web=1000"], 1, "from 1 to 256"),
        (["web=x"], 2, "expected SERVICE=N"),
        (["web"], 2, "expected SERVICE=N"),
    ):
        done = escala("scale", "--file", str(gate.file), *words)
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr


def test_a_drained_replica_gets_nothing(ops: Up) -> None:
    with no_failure(ops) as load:
        assert "web/1 is idle" in run(ops, "drain", "web/1")
        load.more(20)  # those that were on their way
        load.replicas.clear()
        load.more(100)
        assert load.replicas.keys() == {"web/2"}
        assert "draining" in run(ops, "status")
        run(ops, "drain", "web/1", "--resume")
        wait_until(lambda: load.replicas["web/1"] > 5, "it answers again")
    done = escala("drain", "--file", str(ops.file), "web/9")
    assert (done.returncode, "there is no replica 'web/9'; there are: web/1, web/2" in done.stderr) == (1, True)


def change(up: Up, old: str, new: str) -> None:
    text = up.file.read_text()
    assert old in text
    up.file.write_text(text.replace(old, new))


def test_apply(ops: Up) -> None:
    assert "no changes" in run(ops, "apply")
    with no_failure(ops) as load:
        change(ops, '"/slow"', '"/slow", { path = "/new", public = true, timeout = "5s" }')
        change(ops, "replicas = 2", "replicas = 3")
        ops.file.write_text(
            ops.file.read_text() + '\n[services.more]\napp = "tests.gateway.app:app"\nroutes = ["/more"]\n'
        )
        dry = run(ops, "apply", "--dry-run")
        assert "+ services.web.routes[/new].timeout = 5.0" in dry
        assert "~ services.web.replicas.min = 2 → 3" in dry
        assert "nothing was changed (--dry-run)" in dry
        assert httpx.get(f"{ops.url}/new").status_code == 404
        assert "applied" in run(ops, "apply")
        assert httpx.get(f"{ops.url}/new").json()["replica"].startswith("web/")
        with client(ops.url, token_of(ops)) as http:
            assert http.get("/more").json()["replica"] == "more/1"
        wait_until(lambda: load.replicas["web/3"], "the third replica answers")
        ops.file.write_text(ops.file.read_text().partition("\n[services.more]")[0])
        run(ops, "apply")
        with client(ops.url, token_of(ops)) as http:
            assert http.get("/more").status_code == 404
        wait_until(lambda: not ops.replicas("more"), "its replica is gone")
        load.more()


def test_a_wrong_file_changes_nothing(ops: Up) -> None:
    good = ops.file.read_text()
    (ops.file.parent / "bad.pem").write_text("nonsense")
    configuration = (ops.project.layout.gateway / "haproxy.cfg").read_text()
    for wrong, message in (
        (good.replace("/slow", "/sl ow"), "services.web.routes[1].path"),
        (good.replace("[services.web]", "[services.web]\nballance = 1"), "unknown key; did you mean 'balance'"),
        (good + '[gateway.tls]\ncertificates = "nowhere"\n', "does not exist"),
        (good + '[gateway.tls]\ncertificates = "bad.pem"\n', "gateway.tls.certificates: "),
        (good + "[services.b]\napp = 'no.such:app'\nroutes = ['/b']\n", "b did not become ready"),
    ):
        ops.file.write_text(wrong)
        done = escala("apply", "--file", str(ops.file))
        assert done.returncode != 0
        assert message in done.stderr, done.stderr
        ops.file.write_text(good)
        assert (ops.project.layout.gateway / "haproxy.cfg").read_text() == configuration
        with client(ops.url, token_of(ops)) as http:
            assert http.get("/echo").status_code == 200
    wait_until(lambda: not ops.replicas("b"), "the service that could not start is gone")
    with client(ops.url, token_of(ops, "--user", "eve")) as http:
        assert http.get("/echo").status_code == 200
        run(ops, "revoke", "--user", "eve")  # as if nothing had been refused
        assert http.get("/echo").status_code == 401
        assert escala("keys", "rotate", "--file", str(ops.file)).returncode == 0
        assert http.get("/echo").status_code == 401


def test_many_reloads_fail_no_request(ops: Up) -> None:
    with no_failure(ops) as load:
        for number in range(3):
            change(ops, '"/slow"' if number == 0 else f'"/r{number - 1}"', f'"/r{number}"')
            run(ops, "apply")
            load.more(20)
    assert "HAProxy did not accept" not in ops.said()
    assert "[ALERT]" not in ops.said()


def test_a_stop_waits_for_requests_that_a_reload_left_to_the_old_worker(ops: Up, tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {token_of(ops)}"}
    until = {"seconds": "0", "until": str(tmp_path / "now")}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.get, f"{ops.url}/slow", params=until, headers=headers, timeout=30)
        wait_until(lambda: any(each["inflight"] for each in ops.status()["services"]), "it is in flight")
        change(ops, '"/slow"', '"/slow", "/new"')
        run(ops, "apply")
        ops.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "for 1 request in flight" in ops.said(), "the stop says so")
        (tmp_path / "now").touch()
        assert asked.result().status_code == 200
    assert ops.wait_ended() == 0
    assert "[ALERT]" not in ops.said()


def test_a_control_socket_that_somebody_removed_comes_back(ops: Up) -> None:
    socket_file = ops.project.layout.run / "master.sock"
    socket_file.unlink()
    change(ops, '"/slow"', '"/slow", "/new"')
    early = escala("apply", "--file", str(ops.file))
    assert early.returncode == 0 or "HAProxy" in early.stderr, early.stderr
    wait_until(socket_file.exists, "it is there again")
    wait_until(lambda: ops.status()["phase"] == "ready", "all is well")
    assert "the gateway's control socket was removed" in ops.said()
    wait_until(lambda: escala("apply", "--file", str(ops.file)).returncode == 0, "it is applied")
    with client(ops.url, token_of(ops)) as http:
        assert http.get("/new").status_code == 200  # an answer of the service, which has no such page
    assert "Traceback" not in ops.said()


def test_a_revoked_token_is_refused_also_after_a_restart(ops: Up) -> None:
    good, bad, by_id = token_of(ops), token_of(ops), token_of(ops)
    mallory = token_of(ops, "--user", 'mállory "x"')

    def status(token: str) -> int:
        return httpx.get(f"{ops.url}/echo", headers={"Authorization": f"Bearer {token}"}).status_code

    assert [status(token) for token in (good, bad, by_id, mallory)] == [200] * 4
    run(ops, "revoke", "--token", bad)
    run(ops, "revoke", "--user", 'mállory "x"')
    assert [status(token) for token in (good, bad, by_id, mallory)] == [200, 401, 200, 401]
    time_of_second = int(time.time())
    wait_until(lambda: int(time.time()) > time_of_second, "a new second")
    fresh = token_of(ops, "--user", 'mállory "x"')
    assert status(fresh) == 200  # made later
    identity = escala("revoke", "--file", str(ops.file), "--id", "nonsense")
    assert identity.returncode == 0
    master = next(p["pid"] for p in ops.status()["processes"] if p["service"] == "gateway")
    os.kill(master, signal.SIGKILL)
    wait_until(lambda: "gateway ready again" in ops.said(), "the gateway is back")
    assert [status(token) for token in (good, bad, mallory, fresh)] == [200, 401, 401, 200]
    ops.stop()
    with Up(ops.file, environ={"PYTHONPATH": str(REPOSITORY)}) as again:
        again.wait_open()
        assert [status(token) for token in (good, bad, mallory, fresh)] == [200, 401, 401, 200]


def test_a_revocation_while_the_gateway_is_away(ops: Up) -> None:
    bad = token_of(ops, "--user", "eve")
    with client(ops.url, bad) as http:
        assert http.get("/echo").status_code == 200
    os.kill(next(p["pid"] for p in ops.status()["processes"] if p["service"] == "gateway"), signal.SIGKILL)
    run(ops, "revoke", "--user", "eve")
    with client(ops.url, bad) as http:
        assert http.get("/echo").status_code == 401


def test_a_connection_that_an_old_worker_has_is_told_too(ops: Up) -> None:
    with client(ops.url, token_of(ops, "--user", "eve")) as http:
        assert http.get("/echo").status_code == 200
        assert escala("keys", "rotate", "--file", str(ops.file)).returncode == 0
        run(ops, "revoke", "--user", "eve")
        assert http.get("/echo").status_code == 401


def test_a_reload_does_not_hurry_a_replica_that_leaves(ops: Up) -> None:
    token = token_of(ops)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(_ask, ops.url, token, "/slow?seconds=4") for _ in range(6)]
        wait_until(lambda: sum(p["inflight"] or 0 for p in ops.replicas("web")) == 6, "all are in flight")
        run(ops, "scale", "web=1", "--no-wait")
        for _ in range(2):
            assert escala("keys", "rotate", "--file", str(ops.file)).returncode == 0
        assert [future.result() for future in asked] == [200] * 6
    wait_until(lambda: len(ops.replicas("web")) == 1, "it is gone")
    assert "HAProxy did not accept" not in ops.said()


def _ask(url: str, token: str, path: str) -> int:
    with client(url, token) as http:
        return http.get(path).status_code


def test_wrong_revocations(gate: Up) -> None:
    for options, message in (
        ([], "expected exactly one of --token, --id and --user"),
        (["--user", "a\udcff"], "is not valid UTF-8"),
        (["--id", "a", "--user", "b"], "expected exactly one of"),
        (["--token", "nonsense"], "not a token"),
    ):
        done = escala("revoke", "--file", str(gate.file), *options)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_keys_rotate_without_a_refusal(ops: Up) -> None:
    old = token_of(ops)
    with no_failure(ops) as load:
        first = escala("keys", "list", "--file", str(ops.file)).stdout.split()[0]
        assert escala("keys", "rotate", "--file", str(ops.file)).returncode == 0
        load.more()
        fresh = token_of(ops)
        with client(ops.url, fresh) as http:
            assert http.get("/echo").status_code == 200
        with client(ops.url, old) as http:
            assert http.get("/echo").status_code == 200
    signing = escala("keys", "list", "--file", str(ops.file)).stdout.split()[0]
    for kid in ("nonsense", signing):
        assert escala("keys", "retire", "--file", str(ops.file), kid).returncode == 1
    assert escala("keys", "retire", "--file", str(ops.file), first).returncode == 0
    with client(ops.url, old) as http:
        assert http.get("/echo").status_code == 401
    with client(ops.url, fresh) as http:
        assert http.get("/echo").status_code == 200


def test_a_killed_worker_costs_only_what_was_in_it(ops: Up) -> None:
    token = token_of(ops)
    master = psutil.Process(next(p["pid"] for p in ops.status()["processes"] if p["service"] == "gateway"))
    with Load(ops.url, token, clients=6) as load:
        master.children()[0].kill()
        wait_until(lambda: "gateway ready again" in ops.said(), "the gateway is back")
        load.more()
    # A client whose request was in it, or whose idle connection it had, sees that break; nobody is refused.
    assert len(load.errors) <= 6
    assert not [error for error in load.errors if "ConnectError" in error]
    assert load.answers.keys() == {200}


def test_tls(home: Path) -> None:
    certs = home / "certs"
    certs.mkdir()
    (certs / "a.pem").write_text(self_signed(["a.example", "localhost"], 1))
    (certs / "b.pem").write_text(self_signed(["b.example"], 1))
    plain = free_port()
    tls = f'\n[gateway.tls]\ncertificates = "certs"\nredirect = "127.0.0.1:{plain}"\nhsts = "1d"\n'
    (home / "escala.toml").write_text(PROJECT.format(port=free_port()) + tls)
    with Up(home / "escala.toml", environ={"PYTHONPATH": str(REPOSITORY)}) as up:
        up.wait_open()
        port = up.project.config.gateway.bind.port
        url = f"https://127.0.0.1:{port}"
        moved = httpx.get(f"http://127.0.0.1:{plain}/echo?x=1")
        assert (moved.status_code, moved.headers["location"]) == (308, f"{url}/echo?x=1")
        token = token_of(up)
        with httpx.Client(verify=False, headers={"Authorization": f"Bearer {token}"}) as http:
            answer = http.get(f"{url}/echo")
        assert answer.headers["strict-transport-security"] == "max-age=86400"
        assert answer.json()["headers"]["x-forwarded-proto"] == "https"
        assert names(port, "b.example") != names(port, "a.example") == names(port, "c.example")
        with pytest.raises(ssl.SSLError):
            names(port, "a.example", ssl.TLSVersion.TLSv1_1)
        with Load(url, token, verify=False) as load:
            before = names(port, "a.example")
            (certs / "a.pem").write_text(self_signed(["a.example"], 2))
            wait_until(lambda: names(port, "a.example") != before, "the new certificate is used")
            load.more()
            (certs / "a.pem").write_text("nonsense")
            wait_until(lambda: "certificates were not loaded" in up.said(), "it says so")
            load.more()
            shutil.rmtree(certs)
            wait_until(lambda: "stay in use: HAProxy: gateway.tls.certificates: " in up.said(), "it says so")
            load.more()
        assert load.errors == []
        assert load.answers.keys() == {200}


def names(port: int, server: str, most: ssl.TLSVersion | None = None) -> bytes:
    """Return the certificate that a client asking for `server` gets."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if most is not None:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = most
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=server) as wrapped,
    ):
        return wrapped.getpeercert(binary_form=True) or b""


def test_cert_and_routes_and_logs(ops: Up, tmp_path: Path) -> None:
    path = tmp_path / "x" / "dev.pem"
    made = escala("cert", "one.example", "127.0.0.1", "--out", str(path))
    assert made.returncode == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert "BEGIN CERTIFICATE" in path.read_text()
    assert escala("cert", "--out", str(path)).returncode == 1
    table = run(ops, "routes")
    assert "/slow" in table
    assert "a token" in table
    with client(ops.url, token_of(ops, "--user", "eva")) as http:
        identity = http.get("/echo").headers["x-request-id"]
    wait_until(lambda: identity in escala("logs", "--access", "--file", str(ops.file)).stdout, "the line is shown")
    last = next(line for line in run(ops, "logs", "--access").splitlines() if identity in line)
    assert "200" in last
    assert "web/" in last
    assert "eva" in last
    assert identity in run(ops, "logs", "--access", "--json", "-n", "5")
