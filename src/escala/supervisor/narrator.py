"""Events in words: the only place that turns them into lines."""

from collections.abc import Callable
from functools import singledispatchmethod

from escala import events
from escala.config.units import format_duration

_TAIL_SHOWN = 8


class Narrator:
    """Words events for people."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    @singledispatchmethod
    def tell(self, event: events.Event) -> None:
        raise TypeError(f"no words for {event!r}")

    @tell.register
    def _(self, event: events.LeftoverStopped) -> None:
        self._say(f"{event.name} (pid {event.pid}) was left by an earlier run; stopped")

    @tell.register
    def _(self, event: events.EngineReady) -> None:
        how = "answers at its URL" if event.external else f"ready in {format_duration(event.seconds)}"
        self._say(f"{event.name} {how}")

    @tell.register
    def _(self, event: events.Migrated) -> None:
        self._say(f"database migrated: {', '.join(event.names)}")

    @tell.register
    def _(self, event: events.Preparing) -> None:
        self._say(f"preparing: {event.command}")

    @tell.register
    def _(self, event: events.Prepared) -> None:
        self._say(f"prepared in {format_duration(event.seconds)}")

    @tell.register
    def _(self, event: events.ProcessReady) -> None:
        again = " again" if event.restarts else ""
        self._say(f"{event.name} ready{again} in {format_duration(event.seconds)} (pid {event.pid})")

    @tell.register
    def _(self, event: events.ProcessEnded) -> None:
        what = "ended" if event.was_ready else "could not start"
        self._say(f"{event.name} {what}: {event.reason}; next try in {format_duration(event.next_try)}")
        if not event.was_ready:
            for line in event.tail[-_TAIL_SHOWN:]:
                self._say(f"    {event.name} said: {line}")

    @tell.register
    def _(self, event: events.StartFailed) -> None:
        self._say(f"{event.name} could not start: {event.reason}; next try in {format_duration(event.next_try)}")

    @tell.register
    def _(self, event: events.Opened) -> None:
        self._say(f"open at {event.url} after {format_duration(event.seconds)}")

    @tell.register
    def _(self, event: events.BalancerUnreachable) -> None:
        self._say(f"{event.replica}: the gateway was not told ({event.reason}); its health checks will find out")

    @tell.register
    def _(self, event: events.RevocationsUnread) -> None:
        self._say(f"new revocations cannot be read ({event.reason}); those known hold, and it is tried again")

    @tell.register
    def _(self, event: events.Revoked) -> None:
        self._say(f"a {event.kind} was revoked")

    @tell.register
    def _(self, event: events.Scaled) -> None:
        self._say(f"{event.service}: {event.before} → {event.after} replicas")

    @tell.register
    def _(self, event: events.ReplicaLeft) -> None:
        self._say(f"{event.name} left after {format_duration(event.seconds)}")

    @tell.register
    def _(self, event: events.Drained) -> None:
        self._say(f"{event.name} gets {'no new requests' if event.drained else 'requests again'}")

    @tell.register
    def _(self, event: events.Applied) -> None:
        self._say(f"configuration applied: {event.changes} change{'' if event.changes == 1 else 's'}")

    @tell.register
    def _(self, event: events.Reloaded) -> None:
        self._say(f"the gateway took over changed {event.what}")

    @tell.register
    def _(self, event: events.ReloadFailed) -> None:
        self._say(f"changed {event.what} were not taken over: {event.reason}")

    @tell.register
    def _(self, event: events.Stopping) -> None:
        self._say(f"stopping: {event.reason}")

    @tell.register
    def _(self, event: events.Stopped) -> None:
        self._say(f"stopped in {format_duration(event.seconds)}")
