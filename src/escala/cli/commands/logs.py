"""The command `escala logs`."""

import heapq
import re
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.markup import escape

from escala.cli.support.access import show_access
from escala.cli.support.console import out
from escala.cli.support.options import LongFile, Settings, open_project
from escala.errors import ConfigError, EscalaError
from escala.units import parse_duration

_LOOK_EVERY = 0.1
_STAMP = 29
"""The length of the timestamp at the beginning of each line, in characters."""

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME...]",
        help='Services, replicas such as "web/2", engines, "gateway", or "escala" (the supervisor). Default: all.',
    ),
]
Access = Annotated[bool, typer.Option("--access", help="Show the gateway's access log: one line per request.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Continue with new lines until Ctrl-C.")]
Lines = Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines to show.", min=0)]
Since = Annotated[str | None, typer.Option("--since", metavar="DURATION", help="Only the last DURATION, such as 10m.")]
Grep = Annotated[str | None, typer.Option("--grep", metavar="PATTERN", help="Only lines that match this regex.")]
AsJson = Annotated[bool, typer.Option("--json", help="With --access: print each line as a JSON object.")]


def logs(
    names: Names = None,
    file: LongFile = None,
    settings: Settings = None,
    access: Access = False,
    follow: Follow = False,
    lines: Lines = 20,
    since: Since = None,
    grep: Grep = None,
    as_json: AsJson = False,
) -> None:
    """Show the output of processes in chronological order, or with --access the requests that the gateway received."""
    folder = open_project(file, settings).layout.log
    wanted, earliest = _pattern(grep), _moment(since)
    try:
        if access:
            if names:
                raise EscalaError("--access takes no names, as it shows all services; filter with --grep")
            show_access(folder / "access", follow=follow, lines=lines, since=earliest, wanted=wanted, as_json=as_json)
            return
        if as_json:
            raise EscalaError("--json works only with --access, because the output of processes is plain text")
        _show_output(folder, names or [], follow=follow, lines=lines, since=earliest, wanted=wanted)
    except KeyboardInterrupt:
        raise typer.Exit from None


def _show_output(
    folder: Path, names: list[str], *, follow: bool, lines: int, since: float, wanted: re.Pattern[str] | None
) -> None:
    watched = {path: _Tail(path) for path in _files(folder, names)}
    if not watched and not follow:
        there = ", ".join(sorted({_name(path) for path in _files(folder, [])}))
        raise EscalaError(f"{', '.join(names)} has no log yet; there are logs of: {there or 'nothing yet'}")
    stamp = datetime.fromtimestamp(since).astimezone().isoformat(timespec="milliseconds") if since else ""
    chosen = [deque(_chosen(tail.earlier(), stamp, wanted), maxlen=lines) for tail in watched.values()]
    named = [[(line, _name(path)) for line in found] for path, found in zip(watched, chosen, strict=True)]
    for line, name in deque(heapq.merge(*named, key=lambda each: each[0][:_STAMP]), maxlen=lines):
        _print(name, line)
    while follow:
        for path in _files(folder, names):
            watched.setdefault(path, _Tail(path))
        fresh = [(line, _name(path)) for path, tail in watched.items() for line in _chosen(tail.fresh(), "", wanted)]
        for line, name in sorted(fresh, key=lambda each: each[0][:_STAMP]):
            _print(name, line)
        if not fresh:
            time.sleep(_LOOK_EVERY)


class _Tail:
    """A log file that grows, and is rotated when it is large enough."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._inode = 0
        self._rest = ""

    def earlier(self) -> Iterator[str]:
        """Yield all existing lines, the oldest first. `fresh` continues after them."""
        for number in (2, 1):
            aside = self._path.with_name(f"{self._path.name}.{number}")
            if aside.exists():
                with aside.open(encoding="utf-8", errors="replace") as file:
                    yield from (line.rstrip("\n") for line in file)
        yield from self.fresh()

    def fresh(self) -> Iterator[str]:
        """Yield the lines that were written since the last call."""
        if self._file is None:
            self._open()
        yield from self._read()
        try:
            changed = self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return
        if changed:
            yield from self._read()  # lines written before the rotation
            self._open()
            yield from self._read()

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
        try:
            self._file = self._path.open(encoding="utf-8", errors="replace")
            self._inode = self._path.stat().st_ino
        except FileNotFoundError:
            self._file = None

    def _read(self) -> Iterator[str]:
        for piece in self._file or ():
            self._rest += piece
            if self._rest.endswith("\n"):
                yield self._rest[:-1]
                self._rest = ""


def _files(folder: Path, names: list[str]) -> list[Path]:
    """Return the log files of the named processes, or of all. A service's name means all its replicas."""
    found = [path for path in sorted(folder.glob("*.log")) if path.name != "up.log"]
    if not names:
        return found
    return [path for path in found if any(name in (_name(path), _name(path).partition("/")[0]) for name in names)]


def _name(path: Path) -> str:
    head, dash, number = path.stem.rpartition("-")
    return f"{head}/{number}" if dash and number.isdigit() else path.stem


def _chosen(lines: Iterator[str], stamp: str, wanted: re.Pattern[str] | None) -> Iterator[str]:
    return (line for line in lines if line[:_STAMP] >= stamp and (wanted is None or wanted.search(line[_STAMP:])))


def _print(name: str, line: str) -> None:
    stamp, text = line[:_STAMP], line[_STAMP + 1 :]
    out.print(f"[dim]{escape(stamp[11:23])}[/] [cyan]{escape(name):<12}[/] {escape(text)}", highlight=False)


def _pattern(grep: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(grep) if grep is not None else None
    except re.error as error:
        raise ConfigError("escala logs", [f"--grep {grep}: {error}"]) from None


def _moment(since: str | None) -> float:
    """Return the time that lies this duration ago, in seconds since the epoch; 0 for no limit."""
    try:
        return time.time() - parse_duration(since) if since is not None else 0.0
    except ValueError as error:
        raise ConfigError("escala logs", [f"--since {since}: {error}"]) from None
