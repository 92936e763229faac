"""Commands without a running project: what they print and how they exit."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from escala import __version__
from escala.gateway.haproxy.self_signed import self_signed
from escala.processes.ports import free_port
from tests.support import escala, write

GOOD = """
[project]
name = "shop"
[gateway]
bind = "127.0.0.1:18999"
[services.web]
app = "web:app"
routes = ["/shop", { path = "/admin", scopes = ["admin"] }]
[services.worker]
tasks = "jobs"
"""


@pytest.fixture
def shop(folder: Path) -> Path:
    write(folder, web__py="app = print", jobs__py="from escala import task\n@task\ndef one(): ...")
    (folder / "escala.toml").write_text(GOOD)
    return folder


def test_help_and_version() -> None:
    assert escala("--version").stdout.strip() == __version__
    text = escala("--help").stdout
    for command in ("up", "down", "status", "check", "token", "demo"):
        assert command in text
        assert escala(command, "--help").returncode == 0
    assert escala("--help", "status").stdout == text


@pytest.mark.parametrize("arguments", [["nonsense"], ["up", "--nonsense"], ["down", "--timeout", "x"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert escala(*arguments).returncode == 2


@pytest.mark.parametrize(
    "arguments", [["token", "--user", "\udcff"], ["scale", "\udcff=2"], ["revoke", "--user", "\udcff"]]
)
def test_arguments_that_are_no_text(arguments: list[str]) -> None:
    result = escala(*arguments)
    assert result.returncode == 2
    assert "is not valid UTF-8" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["up", "down", "status", "check", "token"])
def test_outside_a_project(command: str, tmp_path: Path) -> None:
    result = escala(command, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no escala.toml in")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["down", "status"])
def test_not_running(command: str, shop: Path) -> None:
    result = escala(command, cwd=shop)
    assert (result.returncode, result.stderr) == (4, "error: shop is not running; start it with `escala up`\n")


def test_check_shows_what_would_run_and_changes_nothing(shop: Path) -> None:
    before = sorted(shop.rglob("*"))
    result = escala("check", cwd=shop, environ={"PYTHONDONTWRITEBYTECODE": "1"})
    assert result.returncode == 0, result.stderr
    for words in ("web:app", "tasks jobs", "/admin, /shop", "postgres   embedded", "is fine"):
        assert words in result.stdout
    assert sorted(shop.rglob("*")) == before


def test_check_names_every_import_that_fails(shop: Path) -> None:
    write(shop, web__py="import absent_library", jobs__py="x = 1")
    result = escala("check", cwd=shop)
    assert result.returncode == 2
    assert (
        "services.web.app: cannot load 'web:app': ModuleNotFoundError: No module named 'absent_library'"
        in result.stderr
    )
    assert "services.worker.tasks: cannot load 'jobs': the module has no tasks" in result.stderr


def test_check_names_a_program_that_is_not_there_and_an_engine_that_is_missing(shop: Path) -> None:
    more = '[services.other]\ncommand = "no-such-program --port $PORT"'
    (shop / "escala.toml").write_text(GOOD + more)
    result = escala("check", cwd=shop)
    assert result.returncode == 2
    assert "services.other.command: the program 'no-such-program' was not found" in result.stderr
    (shop / "escala.toml").write_text(GOOD)
    result = escala("check", "--set", "engines.haproxy.binary=/bin/true", cwd=shop)
    assert result.returncode == 3
    assert "/bin/true" in result.stderr


@pytest.mark.parametrize("command", ["python 'x", "   "])
def test_a_command_line_that_is_none(shop: Path, command: str) -> None:
    for key in ("project.prepare", "services.worker.command"):
        result = escala("check", "--set", f"{key}={command}", cwd=shop)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr


def test_a_wrong_file_is_one_line_for_each_problem(shop: Path) -> None:
    (shop / "escala.toml").write_text(GOOD.replace("bind", "bnd").replace('"shop"', '"Shop"'))
    for command in ("check", "up", "token"):
        result = escala(command, cwd=shop)
        assert result.returncode == 2
        assert "2 problems" in result.stderr
        assert "gateway.bnd: unknown key; did you mean 'bind'?" in result.stderr
        assert "Traceback" not in result.stderr


def test_token(shop: Path) -> None:
    plain = escala("token", cwd=shop, environ={"USER": "ana"})
    assert plain.stdout.count(".") == 2
    assert plain.stdout.count("\n") == 1
    curl = escala("token", "--curl", "--path", "shop?x=1&y=2", cwd=shop).stdout
    assert curl.startswith("curl -i -H 'Authorization: Bearer ey")
    assert curl.rstrip().endswith("'http://127.0.0.1:18999/shop?x=1&y=2'")


@pytest.mark.parametrize("ttl", ["5", "0s", "forever", "-1h", "500ms"])
def test_token_with_a_wrong_ttl(shop: Path, ttl: str) -> None:
    result = escala("token", f"--ttl={ttl}", cwd=shop)
    assert result.returncode == 2
    assert "--ttl: 1 problem" in result.stderr


def test_settings_reach_every_command(shop: Path) -> None:
    result = escala("check", "--set", "services.web.replicas=3", "--set", "gateway.bind=:18998", cwd=shop)
    assert "0.0.0.0:18998" in result.stdout


def test_a_project_that_a_socket_path_cannot_hold(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    (deep / "escala.toml").write_text(GOOD)
    result = escala("up", cwd=deep)
    assert result.returncode == 3
    assert "choose a shorter folder with project.state" in result.stderr


def test_a_key_whose_id_begins_with_a_dash_can_be_named(folder: Path) -> None:
    (folder / "escala.toml").write_text('[project]\nname = "keys"\n[services.web]\napp = "web:app"\n')
    done = escala("keys", "retire", "-_8asB15K4", cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "no key '-_8asB15K4' that can be retired" in done.stderr


def test_check_and_up_refuse_certificates_that_haproxy_does_not_take(folder: Path) -> None:
    (folder / "escala.toml").write_text(
        '[project]\nname = "p"\n[gateway]\npublic = true\n[gateway.tls]\ncertificates = "certs"\n'
        '[services.web]\ncommand = "sleep 9 $PORT"\nroutes = ["/a", { path = "/b", public = false }]\n'
    )
    certs = folder / "certs"

    def refused(words: str) -> None:
        for command, code in (("check", 2), ("up", 3)):
            done = escala(command, "--set", f"gateway.bind=127.0.0.1:{free_port()}", cwd=folder)
            assert done.returncode == code
            assert "gateway.tls.certificates: " in done.stderr, done.stderr
            assert words in done.stderr
        assert not (folder / ".escala" / "postgres" / "data").exists()

    refused("does not exist")
    certs.mkdir()
    refused("there is no certificate in")
    (certs / "a.pem").write_text("nonsense")
    refused("unable to load certificate")
    (certs / "a.pem").write_text(_encrypted(self_signed(["localhost"], 1)))
    refused("No Private Key found in")
    (certs / "a.pem").write_text(self_signed(["localhost"], 1))
    done = escala("check", cwd=folder, environ={"COLUMNS": "40"})
    assert done.returncode == 0, done.stderr
    assert "/a (public), /b\n" in done.stdout.replace(" \n", "\n").replace("  ", "")


def _encrypted(pem: str) -> str:
    """Return certificate and key with the key encrypted: a passphrase would be asked for."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    return pem.partition("-----BEGIN PRIVATE KEY")[0] + secret.decode()


def test_check_refuses_a_folder_that_up_would_refuse(folder: Path) -> None:
    home = folder / "a,b"
    home.mkdir()
    (home / "escala.toml").write_text('[project]\nname = "p"\n[services.web]\ncommand = "sleep 9 $PORT"\n')
    done = escala("check", cwd=home)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "choose another folder with project.state" in done.stderr
    assert {path.name for path in home.iterdir()} == {"escala.toml"}


def test_a_token_has_the_scopes_of_services_and_gateway_too(folder: Path) -> None:
    """Not those of routes alone: "every scope" has to pass everywhere."""
    write(folder, web__py="app = print")
    (folder / "escala.toml").write_text(
        """
        [project]
        name = "shop"
        [gateway]
        scopes = ["everywhere"]
        [services.web]
        app = "web:app"
        scopes = ["web"]
        routes = ["/shop", { path = "/open", public = true }, { path = "/admin", scopes = ["admin"] }]
        [services.api]
        app = "web:app"
        routes = ["/api"]
        """
    )
    made = escala("token", cwd=folder).stdout.strip()
    claims = json.loads(base64.urlsafe_b64decode(made.split(".")[1] + "=="))
    assert claims["scope"].split() == ["admin", "everywhere", "web"]


def test_a_curl_command_fits_the_gateway(folder: Path) -> None:
    """The scheme where TLS is on, and a path that is not public by what stands above it."""
    write(folder, web__py="app = print")
    (folder / "escala.toml").write_text(
        """
        [project]
        name = "shop"
        [gateway]
        bind = "127.0.0.1:18999"
        tls = { certificates = "certs" }
        [services.pages]
        app = "web:app"
        public = true
        routes = ["/a"]
        [services.web]
        app = "web:app"
        routes = ["/b"]
        """
    )
    assert "'https://127.0.0.1:18999/b'" in escala("token", "--curl", cwd=folder).stdout.replace(
        " https://127.0.0.1:18999/b", " 'https://127.0.0.1:18999/b'"
    )


def test_check_warns_of_more_connections_than_postgresql_accepts(shop: Path) -> None:
    with (shop / "escala.toml").open("a") as file:
        file.write("replicas = 20\n[engines.postgres]\nmax_connections = 50\n")
    checked = escala("check", cwd=shop)
    assert checked.returncode == 0, checked.stderr
    assert "may open" in checked.stderr
    assert "accepts only 50" in checked.stderr
