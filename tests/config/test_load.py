from pathlib import Path

import pytest

from escala.config import Address, Config, RouteSettings, find, load
from escala.config.address import parse_address
from escala.errors import ConfigError, ProjectNotFound

GOOD = """
[project]
name = "shop"

[services.web]
app = "shop.web:app"
replicas = { min = 2, max = 4 }
ports = [5001, 5002]
routes = ["/data", { path = "/db", to = "/x", scopes = ["db"], timeout = "5s" }]

[services.web-worker]
tasks = "shop.tasks"
"""


def loaded(tmp_path: Path, text: str, environ: dict[str, str] | None = None, *settings: str) -> Config:
    file = tmp_path / "escala.toml"
    file.write_text(text)
    return load(file, environ or {}, settings)


def problems(tmp_path: Path, text: str, environ: dict[str, str] | None = None, *settings: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, environ, *settings)
    return list(caught.value.problems)


def test_a_file_becomes_frozen_models(tmp_path: Path) -> None:
    config = loaded(tmp_path, GOOD)
    web = config.services["web"]
    assert (web.kind, web.target, web.replicas.min, web.replicas.most) == ("app", "shop.web:app", 2, 4)
    assert web.routes == (
        RouteSettings(path="/data"),
        RouteSettings.model_validate({"path": "/db", "to": "/x", "scopes": ["db"], "timeout": "5s"}),
    )
    assert config.gateway.bind == Address("127.0.0.1", 8000)
    assert (config.issuer, config.audience) == ("shop", "shop")
    with pytest.raises(Exception, match="frozen"):
        web.health = "/x"


def test_the_environment_overrides_the_file_and_the_command_line_both(tmp_path: Path) -> None:
    environ = {
        "ESCALA_GATEWAY__BIND": ":9000",
        "ESCALA_GATEWAY__MAX_BODY": "1KiB",
        "ESCALA_SERVICES__WEB_WORKER__CONCURRENCY": "3",
        "ESCALA_SERVICE": "not a setting",
        "HOME": "/nowhere",
    }
    config = loaded(tmp_path, GOOD, environ, "gateway.bind=127.0.0.1:7000", "services.web.routes=['/a']")
    assert config.gateway.bind.port == 7000
    assert config.gateway.max_body == 1024
    assert config.services["web-worker"].concurrency == 3
    assert config.services["web"].routes == (RouteSettings(path="/a"),)


def test_an_error_names_the_variables_that_took_part(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"escala\.toml with ESCALA_GATEWAY__BIND: 1 problem"):
        loaded(tmp_path, GOOD, {"ESCALA_GATEWAY__BIND": "nowhere", "ESCALA_REPLICA": "x"})


def test_all_errors_at_once_with_path_value_and_suggestion(tmp_path: Path) -> None:
    text = """
    [project]
    name = "Shop 1"
    [gatewy]
    [gateway]
    timeout = 30
    [services.api]
    ap = "x:y"
    replicas = 0
    routes = ["/a", { path = "/b", scops = ["x"] }, "c"]
    """
    found = problems(tmp_path, text, {"ESCALA_GATEWAY__BIND": "nowhere"}, "nonsense")
    assert len(found) == 9
    joined = "\n".join(found)
    for expected in [
        "--set nonsense: expected KEY=VALUE",
        "project.name: expected at most 40 small letters",
        "received 'Shop 1'",
        "gatewy: unknown key; did you mean 'gateway'?",
        'gateway.timeout: expected a string with a unit, such as "30s"; received 30',
        "gateway.bind: expected an address",
        "services.api.ap: unknown key; did you mean 'app'?",
        "services.api.replicas: min = 0 needs a max",
        "services.api.routes[1].scops: unknown key; did you mean 'scopes'?",
        "services.api.routes[2]: expected a path",
    ]:
        assert expected in joined or expected.replace("routes[2]:", "routes[2].path:") in joined, expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ports = [8000]", "services.b.ports[0]: port 8000 is already used by gateway.bind"),
        ('routes = ["/a/"]', "services.b.routes[0]: /a/ already leads to services.a"),
        ('routes = ["/jobs/x"]', "/jobs is reserved for Escala's built-in service"),
        ('routes = [{ path = "/z", public = true, scopes = ["s"] }]', "a public route has no token"),
        ('tasks = "t"', "services.b: set exactly one of app, command and tasks; found app and tasks"),
        ("ports = [1, 2]", "2 ports for at most 1 replicas"),
        ('replicas = "many"', "expected a number, or a table with min and max; received 'many'"),
        ('methods = ["get"]', "methods are case-sensitive; write 'GET'"),
        ('methods = ["GET", "*"]', 'expected a list of methods, or "any"'),
        ("methods = []", 'expected a list of methods, or "any"'),
        ('methods = ["CONNECT"]', "CONNECT asks for a tunnel"),
        ('paths = "asis"', "services.b.paths: expected 'strict' or 'as-is'; received 'asis'"),
        ("hang_timeout = 30", 'services.b.hang_timeout: expected a duration such as "30s", or false; received 30'),
        ('balance = { sticky = "header:Cookie" }', "this header cannot carry a session"),
        ('balance = { sticky = "header:" }', "expected a cookie name"),
        ("routes = [5]", "expected a path, or a table with a path; received 5"),
        ("replicas = { min = 3, max = 2 }", "max (2) is below min (3)"),
        ('routes = ["/a/../b"]', '"." or ".." segments'),
        ('routes = ["/a b"]', "expected a path"),
        ('health = "x"', "expected a path"),
        ('start_timeout = "0s"', "expected a duration between"),
    ],
)
def test_one_thing_wrong(tmp_path: Path, change: str, expected: str) -> None:
    text = f"""
    [project]
    name = "p"
    [services.a]
    app = "a:app"
    routes = ["/a"]
    [services.b]
    app = "b:app"
    {change}
    """
    (only,) = problems(tmp_path, text)
    assert expected in only


def test_a_command_listens_on_one_thing(tmp_path: Path) -> None:
    text = '[project]\nname = "p"\n[services.a]\ncommand = "run $SOCKET ${PORT}"'
    assert problems(tmp_path, text) == ["services.a: a command must use either $PORT or $SOCKET; this one uses both"]


def test_ports_are_not_for_who_listens_on_a_socket(tmp_path: Path) -> None:
    text = '[project]\nname = "p"\n[services.a]\ncommand = "run $SOCKET"\nports = [5001]'
    assert problems(tmp_path, text) == [
        "services.a: ports need a command that listens on $PORT; this one listens on $SOCKET"
    ]


def test_the_built_in_name_is_taken(tmp_path: Path) -> None:
    (only,) = problems(tmp_path, '[project]\nname = "p"\n[services.platform]\napp = "a:b"')
    assert "reserved for Escala's built-in service" in only


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    text = GOOD + '[engines.postgres]\nurl = "mysql://user:hunter2@db/x"'
    (only,) = problems(tmp_path, text)
    assert "hunter2" not in only
    assert "engines.postgres.url: expected a URL such as postgresql://" in only


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"[project", "is not valid TOML"), (b"\xff\xfe", "is not UTF-8"), (None, "does not exist")],
)
def test_an_unreadable_file(tmp_path: Path, content: bytes | None, expected: str) -> None:
    file = tmp_path / "escala.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        load(file, {})


def test_the_file_is_found_upward(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / "escala.toml").touch()
    assert find(below) == tmp_path / "escala.toml"
    with pytest.raises(ProjectNotFound, match=r"no escala\.toml"):
        find(Path("/proc/self"))


@pytest.mark.parametrize(
    ("text", "address", "url"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80), "http://127.0.0.1:80"),
        (":8000", ("0.0.0.0", 8000), "http://127.0.0.1:8000"),
        ("localhost:1", ("127.0.0.1", 1), "http://127.0.0.1:1"),
        ("[::1]:8000", ("::1", 8000), "http://[::1]:8000"),
        ("[::]:8000", ("::", 8000), "http://[::1]:8000"),
    ],
)
def test_addresses(text: str, address: tuple[str, int], url: str) -> None:
    parsed = parse_address(text)
    assert (tuple(parsed), parsed.url) == (address, url)


@pytest.mark.parametrize("text", ["", "8000", "host:80", "::1:80", "[127.0.0.1]:80", "1.2.3.4:0", "1.2.3.4:65536", 80])
def test_bad_addresses(text: object) -> None:
    with pytest.raises(ValueError, match="expected an address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("gateway.forwarded=['10.0.0.1/8']", 'expected an address or a network such as "10.0.0.0/8"'),
        ("gateway.forwarded=['fe80::1%eth0']", 'expected an address or a network such as "10.0.0.0/8"'),
        ("gateway.proxy_protocol=true", "proxy_protocol needs forwarded: the addresses of the proxies that use it"),
        ("gateway.max_head=1KiB", "gateway.max_head: expected at least 8192"),
        ("dev.watch=[5]", "dev.watch[0]: expected a string"),
    ],
)
def test_what_the_gateway_cannot_be(tmp_path: Path, setting: str, expected: str) -> None:
    (found,) = problems(tmp_path, GOOD, None, setting)
    assert expected in found
