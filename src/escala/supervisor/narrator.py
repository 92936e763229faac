"""Events as text: the only module that turns them into lines for people."""

from collections.abc import Callable
from functools import singledispatchmethod

from escala import events
from escala.units import format_duration

_TAIL_SHOWN = 8


class Narrator:
    """Describes events to people.

    `say` gets the lines that people follow live. `note` gets the lines that they only look up later.
    """

    def __init__(self, say: Callable[[str], None], note: Callable[[str], None], *, shown: bool = False) -> None:
        self._say = say
        self._note = note
        self._shown = shown
        """Whether the output of replicas is already on the console. If so, it is not quoted again."""

    @singledispatchmethod
    def tell(self, event: events.Event) -> None:
        raise TypeError(f"no words for {event!r}")

    @tell.register
    def _(self, event: events.LeftoverStopped) -> None:
        self._say(f"{event.name} (pid {event.pid}) was left running by an earlier run; it was stopped")

    @tell.register
    def _(self, event: events.EngineReady) -> None:
        how = "answers at its URL" if event.external else f"ready in {format_duration(event.seconds)}"
        self._say(f"{event.name} {how}")

    @tell.register
    def _(self, event: events.Migrated) -> None:
        self._say(f"database migrated: {', '.join(event.names)}")

    @tell.register
    def _(self, event: events.Preparing) -> None:
        self._say(f"running the prepare command: {event.command}")

    @tell.register
    def _(self, event: events.Prepared) -> None:
        self._say(f"the prepare command finished in {format_duration(event.seconds)}")

    @tell.register
    def _(self, event: events.StateChanged) -> None:
        self._note(f"{event.name}: {event.before} → {event.after}")

    @tell.register
    def _(self, event: events.ProcessReady) -> None:
        again = " again" if event.restarts else ""
        self._say(f"{event.name} ready{again} in {format_duration(event.seconds)} (pid {event.pid})")

    @tell.register
    def _(self, event: events.ProcessEnded) -> None:
        what = "ended" if event.was_ready else "could not start"
        loop = "; it is in a crash loop" if event.crashing else ""
        self._say(f"{event.name} {what}: {event.reason}{loop}; next start in {format_duration(event.next_try)}")
        if not event.was_ready:
            quote = self._note if self._shown and "/" in event.name else self._say
            for line in event.tail[-_TAIL_SHOWN:]:
                quote(f"    output of {event.name}: {line}")

    @tell.register
    def _(self, event: events.StartFailed) -> None:
        self._say(f"{event.name} could not start: {event.reason}; next start in {format_duration(event.next_try)}")

    @tell.register
    def _(self, event: events.HealthChanged) -> None:
        words = {
            "healthy": f"is healthy again (it was {event.before})",
            "busy": "is busy: it does not answer the health check, but it answers requests or is at its limit",
            "unhealthy": "fails its health check; it gets no requests until it is healthy again",
            "hung": "hangs: it does not answer its health check; it gets no requests until it does",
        }
        tell = self._note if "busy" in {event.before, event.after} else self._say
        tell(f"{event.name} {words.get(event.after, f'is {event.after}')}")

    @tell.register
    def _(self, event: events.WriteFailed) -> None:
        self._say(f"{event.what} cannot be written ({event.reason}); everything else continues")

    @tell.register
    def _(self, event: events.WriteRecovered) -> None:
        self._say(f"{event.what} can be written again")

    @tell.register
    def _(self, event: events.LeftBehind) -> None:
        of = event.name or "a process that has ended"
        what = "a process" if len(event.pids) == 1 else f"{len(event.pids)} processes"
        self._say(f"{of} left {what} behind, which had to be killed (pid {', '.join(map(str, event.pids))})")

    @tell.register
    def _(self, event: events.Opened) -> None:
        self._say(f"open at {event.url} after {format_duration(event.seconds)}")

    @tell.register
    def _(self, event: events.MembershipFailed) -> None:
        self._say(f"{event.replica}: HAProxy did not accept its new state ({event.reason})")

    @tell.register
    def _(self, event: events.RevocationsUnread) -> None:
        self._say(
            f"new revocations cannot be read from PostgreSQL ({event.reason});"
            " known ones stay in force, and Escala keeps trying"
        )

    @tell.register
    def _(self, event: events.Revoked) -> None:
        self._say(f"a {event.kind} was revoked")

    @tell.register
    def _(self, event: events.Scaled) -> None:
        self._say(f"{event.service}: {event.before} → {event.after} replicas")

    @tell.register
    def _(self, event: events.Rescaled) -> None:
        self._say(f"{event.service}: {event.before} → {event.after} replicas ({event.why})")

    @tell.register
    def _(self, event: events.Recycling) -> None:
        self._say(f"{event.name} is being replaced: {event.why}")

    @tell.register
    def _(self, event: events.RolloutStarted) -> None:
        self._say(
            f"{event.service}: rolling out, {event.replicas} replica{'' if event.replicas == 1 else 's'} to replace"
        )

    @tell.register
    def _(self, event: events.RolloutProgressed) -> None:
        self._note(f"{event.service}: {event.replaced} of {event.wanted} replaced")

    @tell.register
    def _(self, event: events.OperationChanged) -> None:
        self._note(f"operation {event.id} ({event.kind}) {event.state}{f': {event.step}' if event.step else ''}")

    @tell.register
    def _(self, event: events.CanaryJudged) -> None:
        self._say(f"{event.service}: the canary is {'good' if event.good else 'bad'}: {event.why}")

    @tell.register
    def _(self, event: events.RolloutEnded) -> None:
        self._say(f"{event.service}: rollout finished, {event.replaced} replaced in {format_duration(event.seconds)}")

    @tell.register
    def _(self, event: events.RolloutFailed) -> None:
        self._say(f"{event.service}: the rollout was stopped: {event.reason}")

    @tell.register
    def _(self, event: events.ReplicaLeft) -> None:
        self._say(f"{event.name} was removed; it took {format_duration(event.seconds)} to finish its requests and stop")

    @tell.register
    def _(self, event: events.Drained) -> None:
        self._say(f"{event.name} gets {'no new requests' if event.drained else 'requests again'}")

    @tell.register
    def _(self, event: events.ConfigurationApplied) -> None:
        self._say(f"configuration applied: {event.changes} change{'' if event.changes == 1 else 's'}")

    @tell.register
    def _(self, event: events.Reloaded) -> None:
        self._say(f"the gateway loaded the changed {event.what}")

    @tell.register
    def _(self, event: events.ReloadFailed) -> None:
        self._say(f"the changed {event.what} were not loaded; the previous ones stay in use: {event.reason}")

    @tell.register
    def _(self, event: events.JobsRescued) -> None:
        if event.again:
            count = f"{event.again} job{'' if event.again == 1 else 's'}"
            self._say(f"{event.worker} ended while it ran {count}, which will be tried again")
        if event.poison:
            self._say(f"{event.poison} of its jobs ended every process that ran them, and count as failed")

    @tell.register
    def _(self, event: events.Stopping) -> None:
        self._say(f"stopping: {event.reason}")

    @tell.register
    def _(self, event: events.StopWaits) -> None:
        what = "1 request" if event.requests == 1 else f"{event.requests} requests"
        self._say(f"waiting up to {format_duration(event.seconds)} for {what} in flight")

    @tell.register
    def _(self, event: events.Stopped) -> None:
        self._say(f"stopped in {format_duration(event.seconds)}")
