"""A canary: the first new replica of a rollout, which gets a small share of the requests until it has been judged.

It is compared with the old replicas over the same time. The rollout goes back in either of two cases:

- At least three of its answers were errors (5xx, or broken off), and its error rate is more than one percentage point
  above that of the old replicas.
- Its average answer took more than 1.5 times as long as theirs, and more than 10 ms longer.

With fewer than 20 requests, response times are not compared: the verdict only says that the canary is alive.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from escala.gateway.topology.servers import FULL_WEIGHT

LEAST_REQUESTS = 20
LEAST_ERRORS = 3
MORE_ERRORS = 0.01
SLOWER = 1.5
SLOWER_MILLISECONDS = 10.0


@dataclass(frozen=True)
class Served:
    """What one or more replicas did while the canary was watched."""

    requests: int
    errors: int
    milliseconds: float
    """The average time of an answer."""

    @property
    def error_rate(self) -> float:
        return self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True)
class Verdict:
    good: bool
    why: str


def together(parts: Sequence[Served]) -> Served:
    """Return the sum of what several replicas did."""
    requests = sum(part.requests for part in parts)
    weighted = sum(part.milliseconds * part.requests for part in parts)
    return Served(requests, sum(part.errors for part in parts), weighted / requests if requests else 0.0)


def judge(canary: Served, old: Served) -> Verdict:
    """Return whether the rollout goes on, and why. A pure function."""
    if canary.errors >= LEAST_ERRORS and canary.error_rate > old.error_rate + MORE_ERRORS:
        return Verdict(
            False,
            f"{canary.errors} of its {canary.requests} answers were errors ({canary.error_rate:.1%});"
            f" of the other replicas' answers, {old.error_rate:.1%} were",
        )
    times = f"{canary.milliseconds:.0f} ms per answer on average, the other replicas {old.milliseconds:.0f} ms"
    if canary.requests >= LEAST_REQUESTS and old.requests >= LEAST_REQUESTS:
        slower = canary.milliseconds - old.milliseconds
        if slower > SLOWER_MILLISECONDS and canary.milliseconds > SLOWER * old.milliseconds:
            return Verdict(False, times)
        return Verdict(True, f"{canary.requests} requests, {canary.error_rate:.1%} errors, {times}")
    return Verdict(True, f"it is alive; there were too few requests to compare it ({canary.requests})")


def weight_for(share: float, canaries: int, others: int) -> int:
    """Return the weight that gives `canaries` replicas a `share` (0 to 1) of the requests.

    The `others` have full weight.
    """
    if not others or share >= 1:
        return FULL_WEIGHT
    return min(256, max(1, round(share / (1 - share) * FULL_WEIGHT * others / canaries)))
