"""HAProxy's process as a child of the supervisor."""

from collections.abc import Callable

from escala.gateway.haproxy.configuration import Configuration, Plan
from escala.gateway.haproxy.membership import Membership
from escala.gateway.haproxy.runtime_api import RuntimeApi
from escala.processes.lifecycle import Lifecycle
from escala.processes.process import ProcessSpec

GATEWAY = "gateway"

_USUAL = ("[NOTICE]", "[WARNING]", "Proxy ", "Server ", "Paused ")
_ENDING = ("Cannot transfer the fd", "exited with code 143 (Terminated)")
"""Messages that are normal when workers end.

The first follows a command to a worker that ends after a reload. The second comes from a worker that was told to end
when the project stops.
"""


class GatewayLifecycle(Lifecycle):
    """The lifecycle of HAProxy. `plan` is called at each start, so a restarted gateway gets the current replicas."""

    start_timeout = 10.0

    def __init__(
        self,
        configuration: Configuration,
        membership: Membership,
        runtime: RuntimeApi,
        plan: Callable[[], Plan],
    ) -> None:
        self._configuration = configuration
        self._membership = membership
        self._runtime = runtime
        self._plan = plan

    async def prepare(self) -> ProcessSpec:
        return await self._configuration.prepare(self._plan)

    async def probe(self) -> None:
        await self._runtime.command("show info")

    async def on_ready(self) -> None:
        await self._membership.opened()

    async def on_end(self) -> None:
        await self._membership.closed()


def is_for_people(line: str) -> bool:
    """Whether a line of HAProxy's output is worth showing on the console."""
    return not line.startswith(_USUAL) and not any(words in line for words in _ENDING)
