"""What a configuration means: policies and where they come from, backends, limits, public paths."""

from typing import Any

import pytest

from escala.config import ListenAddress
from escala.config.address import Address
from escala.gateway.topology.topology import Topology
from tests.support import minimal_config


def topology(**sections: Any) -> Topology:
    return Topology.of(minimal_config(**sections))


def web(**service: Any) -> Topology:
    return topology(services={"web": {"app": "shop.web:app", **service}})


@pytest.mark.parametrize(
    ("routes", "health", "told"),
    [
        (["/data", "/more"], "/health", ["/health"]),
        (["/data", "/health/all"], "/health", ["/health", "!/health/all"]),
        (["/data", {"path": "/shop", "public": True}, "/shop/admin"], "tcp", ["/shop", "!/shop/admin"]),
        (["/shop", {"path": "/a", "to": "/", "public": True}, "/b"], "tcp", ["/", "!/b", "!/shop"]),
        (["/shops", {"path": "/shop", "public": True}], "tcp", ["/shop"]),
    ],
)
def test_prefixes_that_need_no_token(routes: list[Any], health: str, told: list[str]) -> None:
    assert web(health=health, routes=routes).public_paths("web") == told


def test_each_value_of_a_policy_is_said_with_its_place() -> None:
    found = topology(
        gateway={"timeout": "5s", "scopes": ["all"]},
        services={
            "web": {
                "app": "a:b",
                "max_body": "1KiB",
                "routes": ["/plain", {"path": "/own", "hosts": ["shop.example"], "timeout": "1s", "public": True}],
            }
        },
    )
    plain, own = (next(route for route in found.routes if route.settings.path == path) for path in ("/plain", "/own"))
    assert (plain.name, plain.policy.timeout, plain.policy.scopes) == ("/plain", 5.0, ("all",))
    assert dict(plain.sources) == {"timeout": "gateway", "scopes": "gateway", "max_body": "services.web"}
    assert (own.name, own.policy.timeout, own.policy.scopes) == ("shop.example/own", 1.0, ())
    assert own.sources["timeout"] == own.where == "services.web.routes[shop.example/own]"
    assert "scopes" not in own.sources  # a public route asks for none


def test_routes_that_share_a_limit_are_counted_together() -> None:
    limit = [{"requests": 5}]
    own = [{"path": "/c", "rate_limits": limit}]
    found = topology(gateway={"rate_limits": limit}, services={"web": {"app": "a:b", "routes": ["/a", "/b", *own]}})
    shared, alone = found.limits
    assert {"/a", "/b"} <= {route.name for route in shared.routes}
    assert [route.name for route in alone.routes] == ["/c"]
    assert shared.table != alone.table
    assert found.limit_counters == 1


def test_a_service_has_a_backend_for_each_balance_and_one_for_websockets() -> None:
    found = web(routes=["/a", {"path": "/b", "balance": {"queue": 5}}])
    names = [(backend.name, [route.name for route in backend.routes]) for backend in found.backends["web"]]
    assert names == [("web", ["/a"]), ("web:1", ["/b"]), ("web:websockets", ["/a", "/b"])]
    b = next(route for route in found.routes if route.name == "/b")
    assert found.backend_for(b, "web").name == "web:1"
    assert found.has_websockets("web")
    assert not found.has_websockets("platform")


def test_scopes_methods_and_bodies_are_those_of_all_that_reaches_a_service() -> None:
    split = {"path": "/s", "split": {"service": "next", "percent": 10}, "max_body": "2KiB", "methods": ["PROPFIND"]}
    found = topology(
        services={
            "web": {"app": "a:b", "routes": [split, {"path": "/t", "scopes": ["b", "a"]}]},
            "next": {"app": "a:b"},
        }
    )
    assert found.scopes == ("a", "b")
    assert found.max_body("next") == 2048
    assert found.unusual_methods("next") == ["PROPFIND"]
    assert [route.name for route in found.reaching["next"]] == ["/s"]


def test_every_address_is_said_with_its_key() -> None:
    found = topology(
        gateway={"bind": "127.0.0.1:8000", "admin": "127.0.0.1:8001"},
        services={"web": {"app": "a:b", "ports": [5001]}},
    )
    assert found.addresses == (
        ListenAddress("gateway.bind", Address("127.0.0.1", 8000)),
        ListenAddress("gateway.admin", Address("127.0.0.1", 8001)),
        ListenAddress("services.web.ports[0]", Address("127.0.0.1", 5001)),
    )
