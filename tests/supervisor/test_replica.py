"""What a replica is told."""

from typing import Any

import pytest

from escala.supervisor.replica import public_paths
from tests.support import minimal_config


@pytest.mark.parametrize(
    ("routes", "health", "told"),
    [
        (["/data", "/more"], "/health", ["/health"]),
        (["/data", "/health/all"], "/health", ["/health", "!/health/all"]),
        (["/data", {"path": "/shop", "public": True}, "/shop/admin"], "tcp", ["/shop", "!/shop/admin"]),
        (["/shop", {"path": "/a", "to": "/", "public": True}, "/b"], "tcp", ["!/shop", "/", "!/b"]),
        (["/shops", {"path": "/shop", "public": True}], "tcp", ["/shop"]),
    ],
)
def test_prefixes_that_need_no_token(routes: list[Any], health: str, told: list[str]) -> None:
    config = minimal_config(services={"web": {"app": "shop.web:app", "health": health, "routes": routes}})
    assert public_paths(config, "web") == told
