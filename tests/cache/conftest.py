from collections.abc import AsyncIterator

import pytest

from escala.cache import CacheSystem
from tests.cache.systems import acting_as, system


@pytest.fixture
async def connected(valkey_url: str) -> AsyncIterator[CacheSystem]:
    async with system(valkey_url) as made:
        with acting_as(made):
            yield made
