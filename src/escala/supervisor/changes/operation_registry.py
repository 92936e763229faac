"""An operation: a request to a running project, and its progress."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from escala.background import report_bug
from escala.control.messages import Applied, OperationStatus, Refusal
from escala.errors import EscalaError, OperationRefused
from escala.events import Emit, OperationChanged
from escala.supervisor.replicas.locks import ServiceLocks

_KEPT = 100
"""How many finished operations are kept, so that clients can still query them."""


@dataclass(eq=False)
class Operation:
    id: str
    kind: str
    emit: Emit
    services: list[str] = field(default_factory=list)
    state: Literal["running", "succeeded", "failed"] = "running"
    step: str = ""
    done: int = 0
    total: int = 0
    applied: Applied | None = None
    failure: EscalaError | None = None
    started_at: float = field(default_factory=time.time)
    ended_at: float | None = None

    def report(self, step: str, done: int = 0, total: int = 0) -> None:
        """Record the current step, and emit an event about it."""
        self.step, self.done, self.total = step, done, total
        self._emit_change()

    def end(self, error: EscalaError | None = None) -> None:
        self.state, self.ended_at = ("failed" if error else "succeeded"), time.time()
        self.failure = error
        self._emit_change()

    @property
    def status(self) -> OperationStatus:
        return OperationStatus(
            id=self.id,
            kind=self.kind,
            services=self.services,
            state=self.state,
            step=self.step,
            done=self.done,
            total=self.total,
            applied=self.applied,
            error=Refusal.of(self.failure) if self.failure else None,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )

    def _emit_change(self) -> None:
        self.emit(OperationChanged(self.id, self.kind, self.state, self.step, self.done, self.total))


class OperationRegistry:
    """Runs operations, and keeps them so that clients can query them."""

    def __init__(self, locks: ServiceLocks, emit: Emit) -> None:
        self._locks = locks
        self._emit = emit
        self._operations: dict[str, Operation] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._began = 0
        self._stopped = False

    def begin(
        self,
        kind: str,
        services: Iterable[str],
        work: Callable[[Operation], Coroutine[Any, Any, None]],
        *,
        locked: bool = False,
    ) -> Operation:
        """Begin an operation on services.

        With `locked`, the services are locked until the operation ends; raise ServiceBusy if one is locked already.
        Without it, the operation itself locks what it needs, for as long as it needs it.
        """
        if self._stopped:
            raise OperationRefused("the project is stopping")
        operation = Operation(str(self._began + 1), kind, self._emit, sorted(services))
        held = ExitStack()
        if locked:
            held.enter_context(self._locks.hold(operation.services, f"{kind} (operation {operation.id})"))
        self._began += 1
        self._operations[operation.id] = operation
        task = asyncio.create_task(self._run(operation, work), name=f"{kind} operation")
        task.add_done_callback(lambda _: held.close())  # runs even if the task never started
        self._tasks[operation.id] = task
        for old in [each.id for each in self._operations.values() if each.ended_at is not None][:-_KEPT]:
            del self._operations[old]
        return operation

    def find(self, identifier: str) -> Operation | None:
        return self._operations.get(identifier)

    def all(self) -> list[Operation]:
        return list(self._operations.values())

    async def wait(self, operation: Operation) -> None:
        """Wait for the end of an operation. If it failed, raise its error."""
        if operation.id in self._tasks:
            await asyncio.shield(self._tasks[operation.id])
        if operation.failure is not None:
            raise operation.failure

    async def stop(self) -> None:
        """Cancel the running operations, because the project stops."""
        self._stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, operation: Operation, work: Callable[[Operation], Coroutine[Any, Any, None]]) -> None:
        try:
            await work(operation)
        except EscalaError as error:
            operation.end(error)
        except OSError as error:
            operation.end(OperationRefused(str(error) or type(error).__name__))
        except asyncio.CancelledError:
            operation.end(OperationRefused("the project is stopping; the operation was abandoned"))
            raise
        except Exception as error:
            operation.end(OperationRefused(f"a bug in Escala ended the operation: {error!r}"))
            report_bug(f"operation {operation.id} ({operation.kind}) was aborted", error)
        else:
            operation.end()
        finally:
            with contextlib.suppress(KeyError):
                del self._tasks[operation.id]
