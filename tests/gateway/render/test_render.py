"""The rendering: golden texts, HAProxy's own check of any valid configuration, and no way out of a quoted place."""

import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from escala.auth.key_store import KeyStore
from escala.config import Config
from escala.engines import haproxy
from escala.gateway.haproxy.configuration import HOLD
from escala.gateway.haproxy.self_signed import self_signed
from escala.gateway.render.context import RenderContext
from escala.gateway.render.limits import MAX_ROUTE_NAME
from escala.gateway.render.maps import backends_map, routes_map
from escala.gateway.render.render import render
from escala.gateway.render.text import quoted
from escala.gateway.topology.topology import Topology
from escala.http import methods
from escala.project.layout import Layout
from tests.gateway.examples import everything, plain, render_context, servers
from tests.support import minimal_config

GOLDEN = Path(__file__).parent


def rendered(name: str) -> str:
    topology = Topology.of(plain() if name == "plain" else everything())
    secure = {"certificates": "/certs", "redirect": "0.0.0.0:8080", "bind": "0.0.0.0:8443"}
    return render(topology, servers(topology), render_context(**(secure if name == "everything" else {})))


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_golden(name: str) -> None:
    """After a change that is meant, `python -m tests.gateway.render.test_render` writes the new text; read its diff."""
    assert rendered(name) == (GOLDEN / f"{name}.cfg").read_text()


def test_haproxy_accepts_everything(session_folder: Path, files: RenderContext) -> None:
    folder = session_folder / "certs of render"
    folder.mkdir()
    (folder / "a.pem").write_text(self_signed(["localhost"], 1))
    context = replace(files, certificates=str(folder), redirect="127.0.0.1:8080")
    topology = Topology.of(everything())
    file = session_folder / "everything.cfg"
    file.write_text(render(topology, servers(topology), context))
    haproxy.check(haproxy.find(None), file, file.parent)


def test_an_operator_can_find_the_key_of_a_rule() -> None:
    lines = [line.strip() for line in rendered("everything").splitlines()]
    rule = next(index for index, line in enumerate(lines) if line.startswith("http-request set-timeout server 300000"))
    assert lines[rule - 1] == "# services.rpc.routes[/rpc.Echo].timeout"
    comments = [line for line in lines if line.startswith("#")]
    assert len(comments) > len(lines) / 6
    for key in ("gateway.max_connections", "gateway.rate_limits", "services.web.routes[/orders].scopes"):
        assert any(key in comment for comment in comments), key


@pytest.mark.parametrize(
    ("service", "observed"),
    [({"app": "a:app"}, True), ({"command": "run $PORT"}, True), ({"command": "run $SOCKET"}, False)],
)
def test_a_full_backlog_is_no_death(service: dict[str, str], observed: bool) -> None:
    """A Unix socket refuses then too, and only the backlog of our own servers is known to be long."""
    topology = Topology.of(minimal_config(services={"web": service}))
    text = render(topology, servers(topology), render_context())
    section = text.partition("\nbackend web\n")[2].partition("\n\n")[0]
    (line,) = (line for line in section.splitlines() if line.startswith("    server 1 "))
    assert ("observe layer4" in line) is observed


segment = st.text(string.ascii_letters + string.digits + "._~-", min_size=1, max_size=12).filter(
    lambda text: set(text) != {"."}
)
path = st.lists(segment, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
scope = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9:._/-]{0,20}", fullmatch=True)
duration = st.integers(1, 10_000).map(lambda n: f"{n}ms")
label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
host = st.builds(
    lambda star, parts: star + ".".join(parts), st.sampled_from(["", "*."]), st.lists(label, min_size=1, max_size=3)
)
header = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
policy: dict[str, st.SearchStrategy[object]] = {
    "public": st.booleans(),
    "scopes": st.lists(scope, max_size=40),
    "timeout": duration,
    "idle_timeout": duration,
    "methods": st.one_of(
        st.just("any"),
        st.lists(st.sampled_from((*methods.DEFAULT, "PROPFIND")), min_size=1, max_size=3),
        st.lists(st.from_regex(r"[A-Z][A-Z0-9!+.^_~-]{0,12}", fullmatch=True), min_size=1, max_size=80),
    ),
    "paths": st.sampled_from(["strict", "as-is"]),
    "hosts": st.lists(host, max_size=2),
    "max_body": st.integers(1, 10**6).map(lambda n: f"{n}B"),
    "retry": st.booleans(),
    "compression": st.booleans(),
    "cache": duration,
    "headers": st.dictionaries(header, printable, max_size=3),
    "cors": st.fixed_dictionaries(
        {"origins": st.lists(label.map(lambda name: f"https://{name}"), min_size=1, max_size=2)},
        optional={"expose": st.lists(header, max_size=2), "credentials": st.booleans()},
    ),
    "rate_limits": st.lists(
        st.fixed_dictionaries(
            {"requests": st.integers(1, 1000)},
            optional={"period": duration, "per": st.sampled_from(["address", "token", "route"])},
        ),
        max_size=4,
    ),
}
balance = st.one_of(
    st.fixed_dictionaries(
        {"algorithm": st.sampled_from(["leastconn", "roundrobin", "random", "first"])},
        optional={
            "sticky": st.sampled_from(["c", "header:X-Session"]),
            "websockets": st.integers(1, 10),
            "queue": st.integers(1, 10),
            "slow_start": duration,
            "retries": st.integers(0, 2),
        },
    ),
    st.fixed_dictionaries({"algorithm": st.just("hash"), "hash_on": header.map(lambda name: f"header:{name}")}),
)
capacity = st.fixed_dictionaries(
    {},
    optional={
        "inflight": st.integers(1, 10),
        "queue": st.integers(1, 10),
        "queue_timeout": duration,
        "connect_timeout": duration,
        "retries": st.integers(0, 2),
    },
)
route = st.fixed_dictionaries({"path": path}, optional={"to": path, "balance": capacity, **policy})
service = st.fixed_dictionaries(
    {"app": st.just("a:b")},
    optional={
        "replicas": st.integers(1, 4),
        "health": path,
        "routes": st.lists(route, max_size=3),
        "balance": balance,
        "protocol": st.sampled_from(["http1", "h2"]),
        **policy,
    },
)
name = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)
tables = st.fixed_dictionaries(
    {
        "project": st.fixed_dictionaries({"name": name}),
        "services": st.dictionaries(name, service, min_size=1, max_size=3),
    },
    optional={
        "auth": st.fixed_dictionaries({}, optional={"issuer": scope, "audience": scope}),
        "gateway": st.fixed_dictionaries(
            {},
            optional={
                "balance": balance,
                "max_head": st.integers(8, 256).map(lambda n: f"{n}KiB"),
                "forwarded": st.lists(st.ip_addresses().map(str), min_size=1, max_size=90),
                "proxy_protocol": st.booleans(),
                **policy,
            },
        ),
    },
)


@pytest.fixture(scope="module")
def files(session_folder: Path) -> RenderContext:
    """Return render_context whose files are there."""
    folder = session_folder / "files of render"
    folder.mkdir()
    context = render_context(str(folder), hold=str(HOLD))
    pem = KeyStore(Layout(session_folder / "keys of render")).public_keys()[0].pem
    for key in context.keys:
        Path(key.file).write_text(pem)
    for path in (context.routes, context.backends, context.revoked_tokens, context.revoked_users):
        Path(path).write_text("")
    return context


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=tables)
def test_haproxy_accepts_whatever_is_valid(
    table: dict[str, object], session_folder: Path, files: RenderContext
) -> None:
    try:
        config = Config.model_validate(table)
    except ValidationError:
        return  # two services that want the same path, or a policy that contradicts itself
    topology = Topology.of(config)
    Path(files.routes).write_text(routes_map(topology))
    Path(files.backends).write_text(backends_map(topology))
    file = session_folder / "any.cfg"
    file.write_text(render(topology, servers(topology), files))
    haproxy.check(haproxy.find(None), file, file.parent)


def test_haproxy_accepts_lists_that_are_too_long_for_a_line(session_folder: Path, files: RenderContext) -> None:
    routes = [
        {
            "path": f"/r{number}",
            "methods": ["GET", "HEAD"] if number % 2 else ["POST"],
            "max_body": f"{10 + number % 3}B",
        }
        for number in range(300)
    ]
    origins = {"origins": [f"https://o{number}.example" for number in range(200)]}
    hosts = [f"h{number}.example" for number in range(300)]
    scopes = [f"scope:{number}" for number in range(100)]
    more = {"path": "/more", "hosts": hosts, "scopes": scopes, "cors": origins, "headers": {"X-Long": "%" * 2048}}
    longest = ".".join(["x" * 63] * 9)
    limited = {"path": "/" + "p" * 255, "hosts": [longest], "rate_limits": [{"requests": 1, "per": "route"}]}
    config = minimal_config(services={"web": {"app": "a:b", "routes": [*routes, more, limited]}})
    assert len(f"{longest}{limited['path']}") <= MAX_ROUTE_NAME
    topology = Topology.of(config)
    Path(files.routes).write_text(routes_map(topology))
    Path(files.backends).write_text(backends_map(topology))
    file = session_folder / "long.cfg"
    file.write_text(render(topology, servers(topology), files))
    haproxy.check(haproxy.find(None), file, file.parent)


HOSTILE = [
    "/a b",
    '/a"',
    "/a\nbackend x",
    "/a'",
    "/a$HOME",
    "/a%[env(HOME)]",
    "/a#",
    "/a{",
    "/a\\",
    "/ä",
    "/a\x00",
    "/a;b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_path_breaks_out(text: str) -> None:
    for key in ("path", "to"):
        with pytest.raises(ValidationError):
            minimal_config(services={"web": {"app": "a:b", "routes": [{"path": "/x", key: text}]}})
    with pytest.raises(ValidationError):
        minimal_config(services={"web": {"app": "a:b", "health": text}})


@pytest.mark.parametrize("text", ["a b", 'a"', "a\n", "$x", "a}", "%x", "", "a'", "-i"])
def test_no_scope_issuer_or_name_breaks_out(text: str) -> None:
    for sections in (
        {"services": {"web": {"app": "a:b", "routes": [{"path": "/x", "scopes": [text]}]}}},
        {"auth": {"issuer": text}},
        {"auth": {"audience": text}},
        {"services": {text: {"app": "a:b"}}},
    ):
        with pytest.raises(ValidationError):
            minimal_config(**sections)


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"])))
def test_quoting_survives_haproxys_own_unquoting(text: str) -> None:
    word = quoted(text)
    assert word[0] == word[-1] == '"'
    inside, unquoted = iter(word[1:-1]), ""
    for character in inside:  # configuration manual, 2.2: inside "", a backslash takes the next character as it is
        assert character not in '"$'
        unquoted += next(inside) if character == "\\" else character
    assert unquoted == text


def test_control_characters_are_refused() -> None:
    with pytest.raises(ValueError, match="control character"):
        quoted("a\nb")


if __name__ == "__main__":
    for each in ("plain", "everything"):
        (GOLDEN / f"{each}.cfg").write_text(rendered(each))
