import os
import socket

import pytest

from escala.config import Address
from escala.errors import PortTaken, StartError
from escala.processes import ports


def test_a_taken_port_names_its_holder() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = Address("127.0.0.1", server.getsockname()[1])
        assert not ports.is_free(address)
        with pytest.raises(PortTaken, match=rf"{address}, wanted by web/1, is held by .*pid {os.getpid()}\)"):
            ports.require_free(address, "web/1")
    assert ports.is_free(address)


def test_a_port_shared_by_reuseport_is_not_free() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not ports.is_free(Address("127.0.0.1", server.getsockname()[1]))


def test_an_address_of_another_machine() -> None:
    with pytest.raises(StartError, match=r"the gateway cannot listen on 192\.0\.2\.1:8000"):
        ports.require_free(Address("192.0.2.1", 8000), "the gateway")


def test_free_ports_are_free() -> None:
    assert ports.is_free(Address("127.0.0.1", ports.free_port()))


def test_a_port_that_is_taken_between_the_look_and_the_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    address = Address("127.0.0.1", ports.free_port())
    require_free = ports.require_free
    faster = socket.socket()

    def looks(address: Address, wanted_by: str) -> None:
        require_free(address, wanted_by)
        faster.bind(tuple(address))
        faster.listen()

    monkeypatch.setattr(ports, "require_free", looks)
    with faster, pytest.raises(PortTaken, match="wanted by the gateway"):
        ports.reserve(address, "the gateway")
