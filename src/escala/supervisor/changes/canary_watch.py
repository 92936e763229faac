"""What a canary and the old replicas do while it is watched."""

import asyncio
import time
from collections.abc import Sequence

from escala.gateway.haproxy.membership import Membership
from escala.gateway.haproxy.traffic import Traffic
from escala.supervisor.changes.canary import Served, together
from escala.supervisor.replicas.replica import Replica

_POLL_SECONDS = 0.25
_PATIENCE = 10.0


class CanaryWatch:
    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    async def observe(self, canary: Replica, others: Sequence[Replica], seconds: float) -> tuple[Served, Served]:
        """Watch for `seconds`. Return what the canary did, and what the others did together.

        If the canary stops serving, the watch ends early.
        """
        before = await self._counted(canary.service)
        end = time.monotonic() + seconds
        while time.monotonic() < end and canary.serves:  # noqa: ASYNC110 - no event tells when it stops serving
            await asyncio.sleep(min(_POLL_SECONDS, max(0.0, end - time.monotonic())))
        after = await self._counted(canary.service)

        if not before or not after:  # HAProxy was down: nobody can be compared
            return Served(0, 0, 0.0), Served(0, 0, 0.0)

        def served(replica: Replica) -> Served:
            return between(before.get(replica.number), after.get(replica.number))

        return served(canary), together([served(replica) for replica in others])

    async def _counted(self, service: str) -> dict[int, Traffic]:
        """Return what HAProxy has counted for each replica; wait for a while if it does not answer."""
        end = time.monotonic() + _PATIENCE
        while not (traffic := await self._membership.traffic()) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)
        return {int(each.server): each for each in traffic if each.service == service and each.server.isdigit()}


def between(before: Traffic | None, after: Traffic | None) -> Served:
    """Return what one replica did between two readings. Its totals only fall if a new replica has got its number."""
    if after is None:
        return Served(0, 0, 0.0)
    requests, errors = (before.requests, before.errors) if before else (0, 0)
    return Served(max(0, after.requests - requests), max(0, after.errors - errors), float(after.milliseconds))
