"""The rendering: golden texts, HAProxy's own check of any valid configuration, and no way out of a quoted place."""

import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from escala.auth.keys import KeyStore
from escala.config import Address, Config
from escala.engines import haproxy
from escala.gateway.render import render
from escala.gateway.text import quoted
from escala.gateway.upstream import Backend, Paths, Server
from escala.layout import Layout
from tests.support import minimal_config

GOLDEN = Path(__file__).with_name("golden.cfg")


def laboratory() -> Config:
    return minimal_config(
        services={
            "web": {"app": "web:app", "replicas": 2, "routes": ["/data", {"path": "/data/fine", "timeout": "5s"}]},
            "db": {"app": "db:app", "routes": [{"path": "/db", "scopes": ["db", "db:write"]}]},
            "pages": {"app": "p:app", "routes": [{"path": "/", "to": "/pages", "public": True}]},
        },
    )


def backends(config: Config) -> list[Backend]:
    made = []
    for index, (name, service) in enumerate(config.services.items()):
        servers = tuple(
            Server(str(number), Address("127.0.0.1", 5000 + 10 * index + number), ready=number == 1)
            for number in range(1, service.replicas.min + 1)
        )
        made.append(Backend(name, service.health, servers))
    return [*made, Backend("platform", "/health", (Server("1", Address("127.0.0.1", 5999), ready=True),))]


def rendered() -> str:
    config = laboratory()
    return render(config, backends(config), Paths("/run/haproxy.sock", "/run/unavailable.sock", "/keys/public.pem"))


def test_golden() -> None:
    """After a change that is meant: ``python -m tests.gateway.test_render`` writes the new text; read its diff."""
    assert rendered() == GOLDEN.read_text()


def test_longest_prefix_first() -> None:
    config = laboratory()
    text = render(config, backends(config), Paths("/s", "/u", "/k"))
    places = [text.index(f"{{ {test} }}") for test in ("path /data/fine", "path /data", "path /db", "path_beg /")]
    assert places[0] < places[1] < places[-1]


segment = st.text(string.ascii_letters + string.digits + "._~-", min_size=1, max_size=12).filter(
    lambda text: set(text) != {"."}
)
path = st.lists(segment, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
scope = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9:._/-]{0,20}", fullmatch=True)
duration = st.integers(1, 10_000).map(lambda n: f"{n}ms")
route = st.fixed_dictionaries(
    {"path": path},
    optional={"to": path, "scopes": st.lists(scope, max_size=3), "timeout": duration},
)
service = st.fixed_dictionaries(
    {"app": st.just("a:b")},
    optional={"replicas": st.integers(1, 4), "health": path, "routes": st.lists(route, max_size=3)},
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
            {}, optional={"timeout": duration, "max_body": st.integers(1, 10**6).map(lambda n: f"{n}B")}
        ),
    },
)


@pytest.fixture(scope="module")
def public_key(session_folder: Path) -> str:
    file = session_folder / "public key.pem"
    file.write_text(KeyStore(Layout(session_folder / "keys of render")).public_pem())
    return str(file)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=tables)
def test_haproxy_accepts_whatever_is_valid(table: dict[str, object], session_folder: Path, public_key: str) -> None:
    try:
        config = Config.model_validate(table)
    except ValidationError:
        return  # two services that want the same path, or the built-in one's
    file = session_folder / "any.cfg"
    file.write_text(
        render(config, backends(config), Paths(f"{session_folder}/s.sock", f"{session_folder}/u.sock", public_key))
    )
    haproxy.check(haproxy.find(None), file)


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
    GOLDEN.write_text(rendered())
