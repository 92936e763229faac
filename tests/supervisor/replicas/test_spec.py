"""What a replica is told."""

from pathlib import Path

import pytest

from escala.config import Address, Endpoint, UnixSocket
from escala.project.layout import Layout
from escala.project.project import Project
from escala.supervisor.replicas.spec import replica_spec
from tests.support import minimal_config

PORT, SOCKET = Address("127.0.0.1", 5001), UnixSocket("/run/web.1.sock")


@pytest.mark.parametrize(
    ("service", "endpoint", "words", "told"),
    [
        ({"command": "run --on $PORT ${PORT} $SOCKETS"}, PORT, ("--on", "5001", "5001", "$SOCKETS"), {"PORT", "HOST"}),
        ({"command": "run unix:$SOCKET ${SOCKET}"}, SOCKET, ("unix:/run/web.1.sock", "/run/web.1.sock"), {"SOCKET"}),
        ({"app": "shop.web:app"}, SOCKET, ("--socket", "/run/web.1.sock"), {"SOCKET"}),
        ({"app": "shop.web:app"}, PORT, ("--host", "127.0.0.1", "--port", "5001"), {"PORT", "HOST"}),
    ],
)
def test_where_to_listen(
    tmp_path: Path, service: dict[str, str], endpoint: Endpoint, words: tuple[str, ...], told: set[str]
) -> None:
    config = minimal_config(services={"web": service})
    project = Project(tmp_path / "escala.toml", config, Layout(tmp_path / ".escala"))
    spec = replica_spec(project, "web", 1, endpoint, {})
    assert " ".join(words) in " ".join(spec.argv)
    assert set(spec.environment) == told


@pytest.mark.parametrize(
    ("service", "on_socket"),
    [
        ({"app": "shop.web:app"}, True),
        ({"tasks": "shop.tasks"}, True),
        ({"command": "run $SOCKET"}, True),
        ({"command": "run ${SOCKET}"}, True),
        ({"command": "run $SOCKETS"}, False),
        ({"command": "run $PORT"}, False),
    ],
)
def test_who_listens_on_a_socket(service: dict[str, str], on_socket: bool) -> None:
    assert minimal_config(services={"web": service}).services["web"].on_socket is on_socket
