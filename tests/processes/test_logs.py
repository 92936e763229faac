import io
import threading
from pathlib import Path

from escala.processes import logs
from escala.processes.logs import Console, Logs
from tests.support import wait_until


class BrokenStream(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_lines_go_to_a_file_and_the_console(tmp_path: Path) -> None:
    stream = io.StringIO()
    sinks = Logs(tmp_path, Console(stream), echo=True)
    take = sinks.sink("web/1", lambda line: "secret" not in line)
    take(["hello"])
    take(["secret noise"])
    sinks.say("own words")
    sinks.close()
    assert stream.getvalue().splitlines() == ["web/1    │ hello", "escala   │ own words"]
    kept = (tmp_path / "web-1.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in kept] == ["hello", "secret noise"]


def test_a_console_that_went_away_is_no_reason_to_stop(tmp_path: Path) -> None:
    sinks = Logs(tmp_path, Console(BrokenStream()), echo=True)
    sinks.say("still here")
    sinks.close()
    assert "still here" in (tmp_path / "escala.log").read_text()


def test_files_are_bounded(tmp_path: Path, monkeypatch: object) -> None:
    monkeypatch.setattr(logs, "_FILE_BYTES", 2000)  # type: ignore[attr-defined]
    sinks = Logs(tmp_path, Console(io.StringIO()), echo=False)
    for number in range(500):
        sinks.write("web/1", f"line {number}")
    sinks.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["web-1.log", "web-1.log.1", "web-1.log.2"]
    assert "line 499" in (tmp_path / "web-1.log").read_text()


class PausedStream(io.StringIO):
    """A terminal that somebody paused (Ctrl-S)."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def write(self, text: str) -> int:
        self.goes_on.wait(30)
        return super().write(text)


def test_a_paused_terminal_holds_up_nobody(tmp_path: Path) -> None:
    stream = PausedStream()
    console = Console(stream)
    sinks = Logs(tmp_path, console, echo=True)
    take = sinks.sink("web/1", lambda line: True)
    for number in range(5000):
        take([f"line {number}"])
    stream.goes_on.set()
    wait_until(lambda: not console._lines.unfinished_tasks, "everything is written")
    take(["the last"])
    sinks.close()
    shown = stream.getvalue().splitlines()
    assert shown[0] == "web/1    │ line 0"
    assert shown[-1] == "web/1    │ the last"
    assert shown[-2].endswith("lines were left out, because the terminal was too slow")
    assert len((tmp_path / "web-1.log").read_text().splitlines()) == 5001  # the file has them all
