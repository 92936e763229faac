"""The rollouts of a running project: those in progress, and how the last one of each service ended."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from escala.background import report_bug
from escala.control.messages import Canary
from escala.control.status import RolloutStatus
from escala.errors import RolloutStopped
from escala.events import Emit, RolloutProgressed
from escala.project.project import Project
from escala.supervisor.changes.canary_watch import CanaryWatch
from escala.supervisor.changes.rollout import Rollout
from escala.supervisor.replicas.locks import ServiceLocks
from escala.supervisor.replicas.replica import Replica
from escala.supervisor.replicas.table import ReplicaTable


class RolloutRegistry:
    def __init__(self, replicas: ReplicaTable, locks: ServiceLocks, watch: CanaryWatch, emit: Emit) -> None:
        self._replicas = replicas
        self._locks = locks
        self._watch = watch
        self._emit = emit
        self._running: dict[str, Rollout] = {}
        self._recycling: set[asyncio.Task[None]] = set()
        self._stopped: dict[str, str] = {}
        """Per service, why its last rollout was stopped."""

    def status(self, service: str) -> RolloutStatus | None:
        """Return the progress of a rollout, or why the last one was stopped; None if there is neither."""
        running = self._running.get(service)
        if running is not None:
            return RolloutStatus("running", running.replaced, running.wanted, "")
        reason = self._stopped.get(service)
        return RolloutStatus("stopped", 0, 0, reason) if reason else None

    async def roll(
        self,
        service: str,
        release: Project,
        canary: Canary | None = None,
        *,
        only: Sequence[Replica] = (),
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Replace the replicas of a service, or `only` some of them.

        Raise RolloutStopped if the rollout failed and was reverted. The caller must hold the service's lock.
        """

        def report() -> None:
            self._emit(RolloutProgressed(service, rollout.replaced, rollout.wanted))
            progress()

        rollout = self._running[service] = Rollout(
            self._replicas,
            service,
            release,
            canary=canary,
            watch=self._watch,
            emit=self._emit,
            only=only,
            progress=report,
        )
        self._stopped.pop(service, None)
        try:
            await rollout.run()
        except RolloutStopped as error:
            self._stopped[service] = str(error)
            raise
        except Exception as error:
            self._stopped[service] = f"it was aborted by an error: {error!r}"
            raise
        finally:
            del self._running[service]

    async def roll_all(
        self, releases: Mapping[str, Project], report: Callable[[str, int, int], None], canary: Canary | None = None
    ) -> None:
        """Roll out several services in parallel. When all have ended, raise RolloutStopped if any was stopped."""

        def progress() -> None:
            running = [self._running[service] for service in releases if service in self._running]
            rest = [f"{each.service}: {each.replaced} of {each.wanted} replaced" for each in running]
            done = sum(each.replaced for each in running)
            report("; ".join(rest), done, sum(each.wanted for each in running))

        rolls = [self.roll(service, release, canary, progress=progress) for service, release in releases.items()]
        outcomes = await asyncio.gather(*rolls, return_exceptions=True)
        bugs = [each for each in outcomes if each is not None and not isinstance(each, RolloutStopped)]
        if bugs:
            raise bugs[0]
        stopped = [f"{service}: {error}" for service, error in zip(releases, outcomes, strict=True) if error]
        if stopped:
            raise RolloutStopped("\n".join(stopped))

    def recycle(self, replicas: Sequence[Replica]) -> None:
        """Begin to replace replicas of one service by identical new ones; raise ServiceBusy if it is locked."""
        service = replicas[0].service
        held = ExitStack()
        held.enter_context(self._locks.hold([service], "recycling"))

        async def recycle() -> None:
            try:
                await self.roll(service, self._replicas.release_of(service), only=replicas)
            except RolloutStopped:
                pass  # an event has reported it
            except Exception as error:
                report_bug(f"the recycling of {service} was aborted", error)

        task = asyncio.create_task(recycle(), name=f"recycling of {service}")
        self._recycling.add(task)
        task.add_done_callback(self._recycling.discard)
        task.add_done_callback(lambda _: held.close())  # runs even if the task never started

    async def stop(self) -> None:
        """Cancel the running replacements, because the project stops."""
        for task in self._recycling:
            task.cancel()
        await asyncio.gather(*self._recycling, return_exceptions=True)
