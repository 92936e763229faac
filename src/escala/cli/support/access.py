"""The access log as `escala logs --access` shows it."""

import re
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
from rich.markup import escape

from escala.access_log.line import Entry, decode
from escala.access_log.segments import segments
from escala.cli.support.console import out
from escala.errors import EscalaError

_LOOK_EVERY = 0.1


def show_access(
    folder: Path, *, follow: bool, lines: int, since: float, wanted: re.Pattern[str] | None, as_json: bool
) -> None:
    """Print the last lines of the access log, taken from all its files.

    Only lines since the time `since` count, and only those that match `wanted`. With `follow`, go on with new lines.
    """
    if not segments(folder) and not follow:
        raise EscalaError(f"there is no access log in {folder} yet; is gateway.access_log enabled?")
    last = _last(folder, lines) if not since and wanted is None else _chosen(folder, lines, since, wanted)
    for line in last:
        _show(line, as_json)
    if follow:
        for line in _follow(folder):
            if _is_wanted(line, since, wanted):
                _show(line, as_json)


def _chosen(folder: Path, count: int, since: float, wanted: re.Pattern[str] | None) -> deque[bytes]:
    found: deque[bytes] = deque(maxlen=count)
    for path in segments(folder):
        if path.stat().st_mtime >= since:
            with path.open("rb") as file:
                found.extend(line for line in file if _is_wanted(line, since, wanted))
    return found


def _is_wanted(line: bytes, since: float, wanted: re.Pattern[str] | None) -> bool:
    if wanted is not None and not wanted.search(line.decode(errors="replace")):
        return False
    try:
        return not since or decode(line).time >= since
    except msgspec.MsgspecError:
        return False


def _last(folder: Path, count: int) -> deque[bytes]:
    """Return the last lines of all files."""
    found: deque[bytes] = deque(maxlen=count)
    for path in reversed(segments(folder)):
        with path.open("rb") as file:
            here = deque(file, maxlen=count - len(found))
        found.extendleft(reversed(here))
        if len(found) == count:
            break
    return found


def _follow(folder: Path) -> Iterator[bytes]:
    """Yield lines as they are written, also when a new file begins."""
    present: Path | None = next(reversed(segments(folder)), None)
    file = _open_at_end(present) if present is not None else None
    rest = b""
    while True:
        if file is not None:
            for line in file:
                rest += line
                if rest.endswith(b"\n"):
                    yield rest
                    rest = b""
        newer = [path for path in segments(folder) if present is None or path > present]
        if newer:
            if file is not None:
                file.close()
            present, rest = newer[0], b""
            file = present.open("rb")
        else:
            time.sleep(_LOOK_EVERY)


def _open_at_end(path: Path) -> BinaryIO:
    file = path.open("rb")
    file.seek(0, 2)
    return file


def _show(line: bytes, as_json: bool) -> None:
    if as_json:
        out.print(line.decode(errors="replace").rstrip("\n"), markup=False)
        return
    try:
        entry = decode(line)
    except msgspec.MsgspecError:
        return  # cut off by a full disk or a crash
    out.print(_readable(entry))


def _readable(entry: Entry) -> str:
    clock = datetime.fromtimestamp(entry.time).astimezone().strftime("%H:%M:%S.%f")[:-3]
    style = "red" if entry.status >= 500 else "yellow" if entry.status >= 400 or entry.status < 0 else "green"
    where = f"{entry.service or '–'}/{entry.replica}" if entry.replica else entry.service or "–"
    waited = f" queue {entry.queue} ms" if entry.queue > 0 else ""
    again = f" {entry.retries} retries" if entry.retries else ""
    ended = f" {entry.termination}" if entry.termination != "--" else ""
    who = entry.subject or (f"token {entry.token}" if entry.token else entry.client)
    return (
        f"[dim]{clock}[/] [{style}]{entry.status}[/] {escape(entry.method):<6} {escape(entry.path)}"
        f" [dim]→[/] {escape(where)} {entry.total} ms{waited}{again}{ended} [dim]{escape(who)} {entry.id or ''}[/]"
    )
