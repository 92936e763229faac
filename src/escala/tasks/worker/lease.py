"""The lease of a worker process: renewed once a second, off the threads that run handlers."""

import os
import time
import uuid
from collections.abc import Mapping, Sequence

from escala.tasks.listing import ListedTask
from escala.tasks.store import attempts as store
from escala.tasks.store import workers
from escala.tasks.store.attempts import Told
from escala.tasks.worker.attempt import Attempt
from escala.tasks.worker.link import Link

RENEW_SECONDS = 1.0


class Lease:
    """`owner` names one lease. If it ends, for example because the process was stopped, the worker takes another."""

    def __init__(
        self, link: Link, *, node: str, replica: str, queues: Sequence[str], tasks: Mapping[str, ListedTask]
    ) -> None:
        self.owner = uuid.uuid4()
        self.renewed_at = time.monotonic()
        self._link = link
        self._node = node
        self._replica = replica
        self._queues = queues
        self._tasks = tasks

    async def register(self) -> None:
        async with self._link.use() as connection:
            await workers.register(
                connection,
                self.owner,
                node=self._node,
                pid=os.getpid(),
                replica=self._replica,
                queues=self._queues,
                tasks=self._tasks,
            )

    async def renew(self) -> bool:
        """Renew the lease. Return False if it had ended; then `owner` is a new one."""
        async with self._link.use() as connection:
            ours = await workers.renew(connection, self.owner)
        if not ours:
            self.owner = uuid.uuid4()
            await self.register()
        self.renewed_at = time.monotonic()
        return ours

    async def tell(self, attempts: Sequence[Attempt]) -> None:
        """Write the progress of those attempts that have reported any."""
        told = []
        for attempt in attempts:
            if attempt.context.reported != attempt.reported:
                attempt.reported = attempt.context.reported
                told.append(Told(attempt.job.id, attempt.job.attempt, *attempt.reported))
        if told:
            async with self._link.use() as connection:
                await store.tell(connection, self.owner, told)

    async def ask(self, attempts: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
        """Return the attempts that are lost, and those whose jobs were cancelled."""
        if not attempts:
            return [], []
        async with self._link.use() as connection:
            held = {row.id: row for row in await store.held(connection, self.owner, [each.job.id for each in attempts])}
        lost, cancelled = [], []
        for attempt in attempts:
            row = held.get(attempt.job.id)
            if attempt.settled:
                continue  # meanwhile
            if row is None or row.attempt != attempt.job.attempt:
                lost.append(attempt)
            elif row.cancelled:
                cancelled.append(attempt)
        return lost, cancelled

    async def end(self) -> None:
        async with self._link.use() as connection:
            await workers.deregister(connection, self.owner)
