"""HAProxy's counters for replicas and services. Totals are kept across reloads, as each new worker starts at zero."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from escala.gateway.topology.backend_names import service_of

_MAX_WORKERS = 20


@dataclass(frozen=True)
class Traffic:
    """The traffic of a replica (`server` "1") or a service (`server` ""), summed over all its backends."""

    service: str
    server: str
    up: bool
    inflight: int
    queued: int
    rate: int
    """Requests in the last second."""
    requests: int
    errors: int
    """5xx answers, failed connections and failed answers."""
    answers: int
    """Requests whose answer has started."""
    full: bool
    """Whether a replica has reached its in-flight limit in at least one backend."""
    milliseconds: int
    """The average time of an answer, over the last 1,024."""


def parse(answer: str) -> list[Traffic]:
    """Read HAProxy's ``show stat`` (Management Guide, section 9.1): one entry for each replica and service."""
    found: dict[tuple[str, str], Traffic] = {}
    for row in csv.DictReader(io.StringIO(answer.removeprefix("# "))):
        if row.get("lastchg") is None:  # truncated: the worker ended while it answered
            raise ConnectionError("HAProxy's answer was cut off")
        if row["svname"] != "FRONTEND":
            seen = _traffic(row)
            before = found.get((seen.service, seen.server))
            found[seen.service, seen.server] = _together(before, seen) if before else seen
    return list(found.values())


class TrafficMeter:
    """Adds up the workers' counters, so that no total falls when a new worker starts at zero after a reload."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str, str], Traffic] = {}
        """The last reading, by process id of the worker, service and server."""
        self._totals: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        """Requests, errors and answers, by service and server."""
        self._answered: list[int] = []
        """Process ids of workers, the one that answered last at the end."""

    def add(self, workers: Mapping[int, Iterable[Traffic]]) -> list[Traffic]:
        """Record the current counters of all workers; return their sum, with totals since the first call."""
        present: dict[tuple[str, str], Traffic] = {}
        for pid, counted in workers.items():
            for now in counted:
                place = (now.service, now.server)
                self._count(place, self._seen.get((pid, *place)), now)
                self._seen[pid, *place] = now
                present[place] = _together(present[place], now) if place in present else now
        self._prune(workers.keys())
        for gone in self._totals.keys() - present.keys():
            del self._totals[gone]
        return [self._with_totals(traffic) for traffic in present.values()]

    def forget(self, service: str, server: str) -> None:
        """Begin at zero for a server: what an old worker has counted was another replica's."""
        self._totals.pop((service, server), None)

    def _prune(self, answered: Iterable[int]) -> None:
        """Forget workers that ended long ago; one that did not answer once may answer again."""
        self._answered = [*(pid for pid in self._answered if pid not in set(answered)), *answered][-_MAX_WORKERS:]
        for pid, service, server in list(self._seen):
            if pid not in self._answered:
                del self._seen[pid, service, server]

    def _count(self, place: tuple[str, str], before: Traffic | None, now: Traffic) -> None:
        totals = self._totals[place]
        if before is not None and now.requests < before.requests:  # a new replica has this number now
            totals[:] = [0, 0, 0]
            before = None
        for index, (new, old) in enumerate(zip(_figures(now), _figures(before), strict=True)):
            totals[index] += max(0, new - old)

    def _with_totals(self, traffic: Traffic) -> Traffic:
        requests, errors, answers = self._totals[traffic.service, traffic.server]
        return replace(traffic, requests=requests, errors=errors, answers=answers)


def _figures(traffic: Traffic | None) -> tuple[int, int, int]:
    return (traffic.requests, traffic.errors, traffic.answers) if traffic else (0, 0, 0)


def _traffic(row: dict[str, str]) -> Traffic:
    def number(name: str) -> int:
        return int(row.get(name) or 0)

    service = row["svname"] == "BACKEND"
    return Traffic(
        service=service_of(row["pxname"]),
        server="" if service else row["svname"],
        up=row["status"].startswith("UP"),
        inflight=number("scur"),
        queued=number("qcur"),
        rate=number("rate"),
        requests=number("stot"),
        errors=number("hrsp_5xx") + number("econ") + number("eresp"),
        answers=sum(number(f"hrsp_{kind}") for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other")),
        full=0 < number("slim") <= number("scur"),
        milliseconds=number("ttime"),
    )


def _together(one: Traffic, other: Traffic) -> Traffic:
    return Traffic(
        service=one.service,
        server=one.server,
        up=one.up,
        inflight=one.inflight + other.inflight,
        queued=one.queued + other.queued,
        rate=one.rate + other.rate,
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        answers=one.answers + other.answers,
        full=one.full or other.full,
        milliseconds=one.milliseconds or other.milliseconds,
    )
