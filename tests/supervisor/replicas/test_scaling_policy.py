"""The policy, on traces: what comes every half a second, and how many replicas there are then."""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from escala.config import ReplicasSettings
from escala.supervisor.replicas.scaling_policy import Capacity, Decision, Sample, decide

EVERY = 0.5
RULES = ReplicasSettings.model_validate({"min": 1, "max": 8, "target_inflight": 10.0})
REQUESTS = Capacity(10)


def follow(
    load: Callable[[float], float],
    seconds: float,
    rules: ReplicasSettings = RULES,
    start: float = 2.0,
    per_replica: int = 10,
) -> list[tuple[float, int]]:
    """Play a service under `load` (requests at a time, by second); return the changes of its number of replicas.

    A replica works `start` seconds after it was asked for, and takes `per_replica` requests at a time; others wait.
    """
    history: list[Sample] = []
    ready_at = [0.0] * rules.min
    changes: list[tuple[float, int]] = []
    for step in range(int(seconds / EVERY)):
        now = step * EVERY
        ready = sum(at <= now for at in ready_at)
        wanted = load(now)
        busy = min(wanted, ready * per_replica)
        history.append(Sample(now, busy, wanted - busy, wanted > 0, 0.0, ready))
        decision = decide(history[-200:], len(ready_at), rules, REQUESTS)
        if decision.count != len(ready_at):
            changes.append((now, decision.count))
            assert decision.why
        ready_at = sorted(ready_at)[: decision.count]
        ready_at += [now + start] * (decision.count - len(ready_at))
    return changes


def counts(changes: list[tuple[float, int]]) -> list[int]:
    return [count for _, count in changes]


def turns(changes: list[tuple[float, int]]) -> int:
    """Return how often the number went down and then up again, or up and then down."""
    steps = [after - before for before, after in pairwise([RULES.min, *counts(changes)])]
    return sum((one > 0) != (other > 0) for one, other in pairwise(steps))


def test_a_step_is_followed_at_once_and_left_after_a_minute() -> None:
    changes = follow(lambda t: 400 if 10 <= t < 60 else 5, 200)
    assert changes[0] == (10.0, 8)
    assert counts(changes) == [8, 1]
    assert 119 <= changes[1][0] <= 122


def test_a_step_within_what_there_is_changes_nothing() -> None:
    assert follow(lambda t: 9 if t > 10 else 1, 100) == []


def test_a_ramp_is_followed_step_by_step() -> None:
    changes = follow(lambda t: min(78, t), 90)
    assert counts(changes) == [2, 3, 4, 5, 6, 7, 8]
    for at, count in changes:
        assert at <= 10 * (count - 1) + RULES.up_after + 1


def test_a_sawtooth_does_not_oscillate() -> None:
    changes = follow(lambda t: 75 * (t % 30) / 30, 600)
    assert max(counts(changes)) == 8
    assert turns(changes) == 0


def test_load_that_swings_about_a_boundary_does_not_oscillate() -> None:
    changes = follow(lambda t: 20 + 1.5 * math.sin(t / 7), 1200)
    assert counts(changes) == [2, 3]


@pytest.mark.parametrize("period", [70, 100, 180])
def test_slow_swings_are_followed_once_each(period: int) -> None:
    cycles = 5
    changes = follow(lambda t: 40 + 35 * math.sin(2 * math.pi * t / period), cycles * period)
    assert turns(changes) <= 2 * cycles


def test_a_burst_of_a_moment_that_nobody_waits_for_is_left_alone() -> None:
    roomy = 100  # a replica takes more than it is meant for
    assert follow(lambda t: 40 if 10 <= t < 10.5 else 4, 100, per_replica=roomy) == []


def test_a_burst_that_waits_is_followed() -> None:
    assert counts(follow(lambda t: 40 if 10 <= t < 10.5 else 4, 40)) == [4]


def test_a_replica_that_starts_slowly_is_not_asked_for_again() -> None:
    changes = follow(lambda t: 35.0, 60, start=20)
    assert counts(changes) == [4]


def test_an_idle_service_stays_as_it_is() -> None:
    assert follow(lambda t: 0, 300) == []


def test_to_zero_and_back() -> None:
    rules = ReplicasSettings.model_validate({"min": 0, "max": 3, "target_inflight": 10.0})
    changes = follow(lambda t: 1 if 5 <= t < 20 else 0, 100, rules)
    assert counts(changes) == [1, 0]
    assert 79 <= changes[1][0] <= 82


def test_short_requests_between_two_looks_keep_it_awake() -> None:
    rules = ReplicasSettings.model_validate({"min": 0, "max": 3})
    history = [Sample(t * EVERY, 0, 0, active=t % 20 == 0, ready=1) for t in range(200)]
    assert decide(history, 1, rules, REQUESTS).count == 1


def test_bounds() -> None:
    assert decide([Sample(0, 1000, 0, ready=2)], 2, RULES, REQUESTS) == Decision(
        8, "1e+03 requests in flight or waiting over 3 s; max is 8"
    )
    assert decide([Sample(0, 0, 0, ready=0)], 0, RULES, REQUESTS).count == 1
    assert decide([], 3, RULES, REQUESTS).count == 3


JOBS = Capacity(busy=10, waiting=20)
WORKERS = ReplicasSettings.model_validate({"min": 1, "max": 6})


def work(*moments: tuple[float, float, float, int]) -> Iterator[Sample]:
    """Yield samples of (running, waiting, oldest, ready)."""
    for step, (running, waiting, oldest, ready) in enumerate(moments):
        yield Sample(step * EVERY, running, waiting, running + waiting > 0, oldest, ready)


def test_workers_follow_the_length_of_the_queue() -> None:
    assert decide(list(work((10, 95, 1, 1))), 1, WORKERS, JOBS) == Decision(5, "95 jobs wait")


def test_workers_follow_the_age_of_the_oldest_job_one_by_one() -> None:
    assert decide(list(work((10, 3, 6, 1))), 1, WORKERS, JOBS) == Decision(2, "a job has waited 6 s")
    assert decide(list(work((10, 3, 7, 1))), 2, WORKERS, JOBS).count == 2  # the second one is still starting
    assert decide(list(work((20, 3, 8, 2))), 2, WORKERS, JOBS).count == 3


def test_workers_go_when_there_has_been_little_to_do() -> None:
    quiet = list(work(*[(6, 0, 0, 4)] * 121))
    assert decide(quiet, 4, WORKERS, JOBS).count == 1
    assert decide(quiet[:100], 4, WORKERS, JOBS).count == 4
    late = list(work(*[(6, 0, 3, 4)] * 121))
    assert decide(late, 4, WORKERS, JOBS).count == 4
