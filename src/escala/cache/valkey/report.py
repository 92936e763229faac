"""Figures of all processes that use a project's cache: each writes its own to Valkey, and everybody can read them.

They are the fields of one hash. A process that has ended without a word is left out after a few seconds.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec

from escala.cache.counts import Counts
from escala.cache.valkey.connect import Connector
from escala.cache.valkey.wire import FAILURES, Wire
from escala.errors import CacheUnavailable
from escala.http.prometheus import label_value

EVERY = 2.0
"""Seconds between two reports of a process."""
_CURRENT = 10.0
"""Seconds for which a report counts."""
_FORGOTTEN = 60.0
"""Seconds after which a report is deleted."""


class Report(msgspec.Struct, kw_only=True):
    """What one process says of its cache."""

    replica: str
    at: float
    """Seconds since the epoch, by Valkey's clock."""
    entries: int
    bytes: int
    """The size of L1, about."""
    evictions: int
    caches: dict[str, dict[str, int]]
    """The `Counts` of each cache by name, since the process started."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Report)


def prefix_of(project: str) -> str:
    """Return what all keys of a project's caches begin with. The braces put them on one server of a cluster."""
    return f"escala:{{{project}}}:"


async def write(wire: Wire, prefix: str, process: str, report: Report) -> None:
    """Replace a process's report. Raises one of FAILURES."""
    await wire.call("HSET", f"{prefix}reports", process, _encoder.encode(report))


async def remove(wire: Wire, prefix: str, process: str) -> None:
    """Delete the report of a process that ends. Raises one of FAILURES."""
    await wire.call("HDEL", f"{prefix}reports", process)


async def read(wire: Wire, project: str) -> list[Report]:
    """Return the reports of the processes that run. Raises one of FAILURES."""
    key = f"{prefix_of(project)}reports"
    fields, (seconds, _) = await wire.calls(("HGETALL", key), ("TIME",))
    reports = []
    for process, payload in zip(fields[::2], fields[1::2], strict=True):
        try:
            report = _decoder.decode(payload)
        except msgspec.MsgspecError:  # another version's
            continue
        age = int(seconds) - report.at
        if age < _CURRENT:
            reports.append(report)
        elif age > _FORGOTTEN:
            await wire.call("HDEL", key, process)
    return sorted(reports, key=lambda report: report.replica)


def total(reports: Iterable[Report]) -> dict[str, Counts]:
    """Return the sums over all processes, by cache."""
    sums: dict[str, Counts] = {}
    for report in reports:
        for name, counts in report.caches.items():
            sums.setdefault(name, Counts()).add(counts)
    return dict(sorted(sums.items()))


@asynccontextmanager
async def connection(url: str, project: str, what: str) -> AsyncIterator[Wire]:
    """Connect to a project's Valkey for a moment. Raises CacheUnavailable if that fails, or what is done in the block.

    `what` says what cannot be carried out then.
    """
    try:
        make = await Connector(url, prefix_of(project)).locate()
        wire = Wire(make(), lambda: None)
        try:
            await wire.open()
            yield wire
        finally:
            wire.close()
    except FAILURES as error:
        raise CacheUnavailable(what, str(error) or type(error).__name__) from error


def exposition(reports: Iterable[Report]) -> str:
    """Return the figures of a project's caches in Prometheus' text format (version 0.0.4)."""
    reports = list(reports)
    lines = []
    for name, kind, text in _METRICS:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for report in reports:
            replica = f'replica="{label_value(report.replica)}"'
            if name.startswith("escala_cache_l1_"):
                value = getattr(report, name.removeprefix("escala_cache_l1_").removesuffix("_total"))
                lines.append(f"{name}{{{replica}}} {value}")
                continue
            for cache, counts in report.caches.items():
                labels = f'{replica},cache="{label_value(cache)}"'
                if name == "escala_cache_lookups_total":
                    lines += [
                        f'{name}{{{labels},source="{source}"}} {counts.get(source, 0)}'
                        for source in ("l1", "l2", "loader")
                    ]
                else:
                    field = name.removeprefix("escala_cache_").removesuffix("_total")
                    lines.append(f"{name}{{{labels}}} {counts.get(field, 0)}")
    return "\n".join(lines) + "\n"


_METRICS = (
    ("escala_cache_lookups_total", "counter", "Lookups, by what answered them."),
    ("escala_cache_stale_total", "counter", "Lookups that were answered by a value older than its ttl."),
    ("escala_cache_loads_total", "counter", "Loads that were run."),
    ("escala_cache_errors_total", "counter", "Loads that failed."),
    ("escala_cache_waits_total", "counter", "Loads that waited for another process to load the value."),
    ("escala_cache_invalidations_total", "counter", "Invalidations that the process asked for."),
    ("escala_cache_oversized_total", "counter", "Values that were too large to be kept in Valkey."),
    ("escala_cache_l1_entries", "gauge", "Entries in the process's memory."),
    ("escala_cache_l1_bytes", "gauge", "Size of these entries, about."),
    ("escala_cache_l1_evictions_total", "counter", "Entries that were dropped to make room."),
)
