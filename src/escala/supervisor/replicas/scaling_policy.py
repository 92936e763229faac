"""How many replicas a service should have: a pure function of the measurements.

For services, the load is the requests in flight and those that wait in the gateway. For workers, it is the running
jobs and the waiting ones.

Scaling up is fast. It follows the average load over `up_after`. If the queue is filling, it follows the newest sample
at once.

Scaling down is slow. It follows the highest load within `down_after`, and happens only if the remaining replicas would
have had a fifth of their capacity to spare. So a load that comes and goes within that time changes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from escala.config import ReplicasSettings

SPARE = 0.8
"""How fully the remaining replicas may be loaded after scaling down, as a share of their capacity."""


@dataclass(frozen=True)
class Sample:
    """What was measured at one moment."""

    at: float
    """Seconds of a clock that only goes forward."""
    busy: float
    """The work in progress: requests in flight, or running jobs."""
    waiting: float
    """Requests in the gateway's queue, or jobs that are due."""
    active: bool = True
    """Whether any request or job came since the previous sample. It may have ended before this sample was taken."""
    oldest: float = 0.0
    """For workers: how many seconds the oldest due job has waited."""
    ready: int = 0
    """How many replicas can work. One that is still starting does not count."""


@dataclass(frozen=True)
class Capacity:
    """The load that one replica is meant to handle."""

    busy: float
    """Requests in flight or waiting; for workers: jobs at a time."""
    waiting: float | None = None
    """For workers: waiting jobs."""


@dataclass(frozen=True)
class Decision:
    count: int
    why: str


def decide(history: Sequence[Sample], present: int, rules: ReplicasSettings, capacity: Capacity) -> Decision:
    """Return how many replicas there should be, and why.

    `history` goes back as far as `down_after`. The newest sample is last.
    """
    if not history:
        return Decision(present, "nothing has been measured yet")
    more = _more(history, present, rules, capacity)
    if more.count > present:
        return _bounded(more, rules)
    if present < rules.min:
        return Decision(rules.min, f"min is {rules.min}")
    return _bounded(_fewer(history, present, rules, capacity), rules)


def _more(history: Sequence[Sample], present: int, rules: ReplicasSettings, capacity: Capacity) -> Decision:
    newest = history[-1]
    recent = [sample for sample in history if sample.at > newest.at - rules.up_after]
    load = sum(_load(sample, capacity) for sample in recent) / len(recent)
    what = _what(capacity)
    by_average = Decision(_needed(load, capacity), f"{load:.3g} {what} over {rules.up_after:g} s")
    if capacity.waiting is not None:
        return max(by_average, _by_backlog(newest, present, rules, capacity), key=lambda each: each.count)
    filling = newest.waiting > 0 and (len(history) == 1 or newest.waiting >= history[-2].waiting)
    if filling:
        now = Decision(_needed(_load(newest, capacity), capacity), f"the queue is filling: {newest.waiting:g} waiting")
        return max(by_average, now, key=lambda each: each.count)
    return by_average


def _by_backlog(newest: Sample, present: int, rules: ReplicasSettings, capacity: Capacity) -> Decision:
    """Return how many replicas the job queue needs."""
    assert capacity.waiting is not None
    by_length = Decision(math.ceil(newest.waiting / capacity.waiting), f"{newest.waiting:g} jobs wait")
    if newest.oldest > rules.target_wait and newest.ready >= present:  # replicas added earlier already work
        by_age = Decision(present + 1, f"a job has waited {newest.oldest:.0f} s")
        return max(by_length, by_age, key=lambda each: each.count)
    return by_length


def _fewer(history: Sequence[Sample], present: int, rules: ReplicasSettings, capacity: Capacity) -> Decision:
    newest = history[-1]
    window = [sample for sample in history if sample.at >= newest.at - rules.down_after]
    peak = max(_load(sample, capacity) for sample in window)
    what = _what(capacity)
    because = f"at most {peak:.3g} {what} in {rules.down_after:g} s"
    if history[0].at > newest.at - rules.down_after:  # it has not been measured for that long yet
        return Decision(present, f"{_load(newest, capacity):.3g} {what} now")
    if capacity.waiting is not None and any(sample.oldest > rules.target_wait / 2 for sample in window):
        return Decision(present, f"jobs have waited up to {max(s.oldest for s in window):.0f} s")
    if not any(sample.active for sample in window) and peak == 0:
        return Decision(min(present, rules.min), f"no load for {rules.down_after:g} s")
    needed = max(1, _needed(peak / SPARE, capacity))
    return Decision(min(present, needed), because)


def _needed(load: float, capacity: Capacity) -> int:
    return math.ceil(load / capacity.busy - 1e-9)


def _what(capacity: Capacity) -> str:
    return "jobs running" if capacity.waiting is not None else "requests in flight or waiting"


def _load(sample: Sample, capacity: Capacity) -> float:
    """Return the load of one sample. Waiting jobs are not part of it: `_by_backlog` handles them."""
    return sample.busy if capacity.waiting is not None else sample.busy + sample.waiting


def _bounded(decision: Decision, rules: ReplicasSettings) -> Decision:
    count = min(max(decision.count, rules.min), rules.most)
    if count < decision.count:
        return Decision(count, f"{decision.why}; max is {rules.most}")
    if count > decision.count:
        return Decision(count, f"{decision.why}; min is {rules.min}")
    return Decision(count, decision.why)
