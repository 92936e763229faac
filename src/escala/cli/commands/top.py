"""The command `escala top`."""

import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from escala.cli.support import quantiles
from escala.cli.support.console import out
from escala.cli.support.options import File, Settings, open_project
from escala.cli.support.quantiles import Histogram
from escala.cli.support.tables import styled_state
from escala.control.client import Client
from escala.control.messages import Drain, Roll, Scale
from escala.control.status import ProcessStatus, ServiceStatus, Status
from escala.errors import EscalaError
from escala.units import format_duration, format_size

EVERY = 1.0
"""Seconds between two updates."""

_ANSWERED = ("in memory", "by Valkey", "loaded")

KEYS = "↑ ↓ choose   + - scale   r restart   d drain or resume   q quit"


def top(file: File = None, settings: Settings = None) -> None:
    """Watch a running project live: services, replicas, rates, latencies, queues, jobs. Keys scale, restart, drain."""
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise EscalaError("`escala top` needs a terminal; use `escala status` to print the state once")
    project = open_project(file, settings)
    client = Client(project)
    view = View(client.status())
    with _keys() as press, Live(view.screen(), console=out, screen=True, auto_refresh=False) as live:
        looked = 0.0
        while True:
            if time.monotonic() - looked >= EVERY:
                status = client.status()
                view.take(status, quantiles.read(status.metrics, project.topology))
                looked = time.monotonic()
            live.update(view.screen(), refresh=True)
            for key in press(max(0.0, looked + EVERY - time.monotonic())):
                if key in {"q", "\x03", "\x04"}:
                    return
                try:
                    view.act(key, client)
                except EscalaError as error:
                    view.said = str(error)
                looked = 0.0


@dataclass
class View:
    """The content of the screen."""

    status: Status
    chosen: int = 0
    """The index of the chosen row (`rows`)."""
    said: str = ""
    """The result of the last key, as text."""
    _before: dict[str, Histogram] = field(default_factory=dict)
    _recent: dict[str, Histogram] = field(default_factory=dict)
    _asked: tuple[int, int, int] = (0, 0, 0)
    """The lookups in the cache since its previous report: answered in memory, by Valkey, by a load."""

    def take(self, status: Status, histograms: dict[str, Histogram]) -> None:
        """Take a newer status to show."""
        earlier, now = self.status.cache, status.cache
        if earlier and now and now != earlier:  # processes report less often than this is called
            since = (now.l1 - earlier.l1, now.l2 - earlier.l2, now.loader - earlier.loader)
            self._asked = since if min(since) >= 0 else (0, 0, 0)
        self.status = status
        self._recent = {name: quantiles.since(self._before.get(name, {}), each) for name, each in histograms.items()}
        self._before = histograms
        self.chosen = min(self.chosen, len(self.rows()) - 1)

    def rows(self) -> list[tuple[ServiceStatus, ProcessStatus | None]]:
        """Return the rows: each service, followed by its replicas."""
        found: list[tuple[ServiceStatus, ProcessStatus | None]] = []
        for service in self.status.services:
            found.append((service, None))
            found += [(service, p) for p in self.status.processes if p.service == service.name]
        return found

    def act(self, key: str, client: Client) -> None:
        """Carry out the action of a key."""
        service, process = self.rows()[self.chosen]
        self.said = ""
        if key == "up":
            self.chosen = max(0, self.chosen - 1)
        elif key == "down":
            self.chosen = min(len(self.rows()) - 1, self.chosen + 1)
        elif key in {"+", "-"}:
            count = service.replicas + (1 if key == "+" else -1)
            client.begin(Scale(service.name, count))
            self.said = f"{service.name}: {service.replicas} → {count} replicas"
        elif key == "r":
            client.begin(Roll([service.name]))
            self.said = f"{service.name} is being restarted"
        elif key == "d" and process is not None:
            name = f"{process.service}/{process.replica}"
            client.begin(Drain(name, not process.drained))
            self.said = f"{name} gets {'requests again' if process.drained else 'no new requests'}"
        elif key == "d":
            self.said = "choose a replica with ↑ and ↓ first: a whole service cannot be drained"

    def screen(self) -> RenderableType:
        status = self.status
        rate = sum(service.rate for service in status.services)
        head = Text(f"{status.project}  {status.phase}  {status.url}  {rate:,} requests/s", style="bold")
        others = [process for process in status.processes if not process.replica]
        engines = "  ".join(f"{p.service} {p.state} {format_size(p.memory or 0)}" for p in others)
        about = [
            f"{s.name}: {words}" for s in status.services for words in (s.why, s.rollout and str(s.rollout)) if words
        ]
        parts: list[RenderableType] = [head, Text(engines, style="dim"), Text(""), self._table(), Text("")]
        if status.jobs is not None:
            jobs = status.jobs
            oldest = f", the oldest for {format_duration(jobs.oldest_seconds)}" if jobs.waiting else ""
            parts.append(Text(f"jobs: {jobs.running:,} running, {jobs.waiting:,} waiting{oldest}"))
        if status.cache is not None:
            asked, cache = sum(self._asked), status.cache
            shares = [
                f"{count / asked:.0%} {words}" for count, words in zip(self._asked, _ANSWERED, strict=True) if asked
            ]
            held = f"{cache.entries:,} entries in memory ({format_size(cache.bytes)})"
            parts.append(Text(f"cache: {', '.join([f'{asked:,} lookups', *shares, held])}"))
        parts += [Text(line, style="red") for line in status.problems]
        parts += [Text(line) for line in about]
        parts += [Text(""), Text(self.said, style="yellow"), Text(KEYS, style="dim")]
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("SERVICE", no_wrap=True)
        for heading in ("STATE", "PER SECOND", "P50", "P99", "IN FLIGHT", "WAITING", "ERRORS", "MEMORY"):
            table.add_column(heading, no_wrap=True, justify="left" if heading == "STATE" else "right")
        for index, (service, process) in enumerate(self.rows()):
            style = "reverse" if index == self.chosen else ""
            table.add_row(*(self._of_replica(process) if process else self._of_service(service)), style=style)
        return table

    def _of_service(self, service: ServiceStatus) -> tuple[str, ...]:
        recent = self._recent.get(service.name, {})
        half, most = (_milliseconds(quantiles.quantile(recent, share)) for share in (0.5, 0.99))
        bounds = f" of {service.min}–{service.max}" if service.max != service.min else ""
        counts = (f"{service.inflight:,}", f"{service.queued:,}", f"{service.errors:,}")
        return (f"[bold]{service.name}[/]", f"{service.replicas}{bounds}", f"{service.rate:,}", half, most, *counts, "")

    def _of_replica(self, process: ProcessStatus) -> tuple[str, ...]:
        counts = (f"{process.inflight or 0:,}", f"{process.queued or 0:,}", f"{process.errors or 0:,}")
        memory = format_size(process.memory) if process.memory else "–"
        name = f"  {process.service}/{process.replica}"
        return (name, styled_state(process), f"{process.rate or 0:,}", "", "", *counts, memory)


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:,.1f} ms"


_NAMED = {"\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down", "k": "up", "j": "down"}
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
"""One key as terminals send it. Several keys may arrive at once."""


@contextmanager
def _keys() -> Iterator["Press"]:
    """Provide the keyboard key by key, without echo. Restore the terminal's settings afterwards."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield Press(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class Press:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, seconds: float) -> list[str]:
        """Return as soon as a key is pressed, or an empty list after `seconds`."""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return []
        pressed = _KEY.findall(os.read(self._descriptor, 64).decode(errors="ignore"))
        return [_NAMED.get(key, key) for key in pressed]
