"""An engine at a URL, which is not started by Escala."""

from collections.abc import Awaitable, Callable

from escala.processes.process import ProcessSpec


class External:
    def __init__(self, name: str, url: str, probe: Callable[[str], Awaitable[None]]) -> None:
        self.name = name
        self.url = url
        self._probe = probe

    def prepare(self) -> None:
        pass

    def process(self) -> ProcessSpec | None:
        return None

    async def probe(self) -> None:
        await self._probe(self.url)
