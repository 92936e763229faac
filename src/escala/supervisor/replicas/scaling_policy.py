"""How many replicas a service shall have: a pure function of what was measured.

Load is what keeps replicas busy: for services the requests in flight and those that wait in the gateway, for workers
the jobs that run and those that wait. Up is fast: by the average over `up_after`, and at once by the newest sample
where the queue is filling. Down is slow: by the highest load within `down_after`, and only where the fewer replicas
would have had a fifth of themselves to spare; so a load that comes and goes within that time changes nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from escala.config import ReplicasSettings

SPARE = 0.8
"""How full fewer replicas may be for the others to go."""


@dataclass(frozen=True)
class Sample:
    """What was measured at one moment."""

    at: float
    """Seconds of a clock that only goes forward."""
    busy: float
    """What replicas are working on: requests in flight, or running jobs."""
    waiting: float
    """Requests in the gateway's queue, or jobs that are due."""
    active: bool = True
    """Whether anything came since the sample before; requests may be shorter than the time between two."""
    oldest: float = 0.0
    """For workers: the seconds that the oldest due job has waited."""
    ready: int = 0
    """Replicas that can work; one that starts is not there yet."""


@dataclass(frozen=True)
class Capacity:
    """What one replica is there for."""

    busy: float
    """Requests, in flight or waiting; or jobs at a time."""
    waiting: float | None = None
    """For workers: jobs that wait."""


@dataclass(frozen=True)
class Decision:
    count: int
    why: str


def decide(history: Sequence[Sample], present: int, rules: ReplicasSettings, capacity: Capacity) -> Decision:
    """Return how many there shall be, and why; `history` goes back `down_after`, the newest last."""
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
        now = Decision(_needed(_load(newest, capacity), capacity), f"the queue is filling ({newest.waiting:g} wait)")
        return max(by_average, now, key=lambda each: each.count)
    return by_average


def _by_backlog(newest: Sample, present: int, rules: ReplicasSettings, capacity: Capacity) -> Decision:
    """Return what the queue of jobs asks for."""
    assert capacity.waiting is not None
    by_length = Decision(math.ceil(newest.waiting / capacity.waiting), f"{newest.waiting:g} jobs wait")
    if newest.oldest > rules.target_wait and newest.ready >= present:  # those that were asked for are at work already
        by_age = Decision(present + 1, f"a job has waited {newest.oldest:.0f} s")
        return max(by_length, by_age, key=lambda each: each.count)
    return by_length


def _fewer(history: Sequence[Sample], present: int, rules: ReplicasSettings, capacity: Capacity) -> Decision:
    newest = history[-1]
    window = [sample for sample in history if sample.at >= newest.at - rules.down_after]
    peak = max(_load(sample, capacity) for sample in window)
    what = _what(capacity)
    because = f"at most {peak:.3g} {what} in {rules.down_after:g} s"
    if history[0].at > newest.at - rules.down_after:  # it has not been watched for so long yet
        return Decision(present, f"{_load(newest, capacity):.3g} {what} now")
    if capacity.waiting is not None and any(sample.oldest > rules.target_wait / 2 for sample in window):
        return Decision(present, f"jobs have waited up to {max(s.oldest for s in window):.0f} s")
    if not any(sample.active for sample in window) and peak == 0:
        return Decision(min(present, rules.min), f"nothing came for {rules.down_after:g} s")
    needed = max(1, _needed(peak / SPARE, capacity))
    return Decision(min(present, needed), because)


def _needed(load: float, capacity: Capacity) -> int:
    return math.ceil(load / capacity.busy - 1e-9)


def _what(capacity: Capacity) -> str:
    return "jobs running" if capacity.waiting is not None else "requests in flight or waiting"


def _load(sample: Sample, capacity: Capacity) -> float:
    """Return what one sample asks for; jobs that wait are counted by themselves."""
    return sample.busy if capacity.waiting is not None else sample.busy + sample.waiting


def _bounded(decision: Decision, rules: ReplicasSettings) -> Decision:
    count = min(max(decision.count, rules.min), rules.most)
    if count < decision.count:
        return Decision(count, f"{decision.why}; max is {rules.most}")
    if count > decision.count:
        return Decision(count, f"{decision.why}; min is {rules.min}")
    return Decision(count, decision.why)
