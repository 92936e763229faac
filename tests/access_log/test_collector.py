import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from escala.access_log.collector import Collector
from escala.access_log.line import Entry, decode
from escala.access_log.line_sequence import LineSequence
from escala.access_log.metrics import RouteMetrics
from escala.access_log.segments import Segments, segments
from escala.supervisor.gateway.access_log import LogPipe
from tests.access_log.lines import line
from tests.support import eventually


@pytest.fixture
def metrics() -> RouteMetrics:
    return RouteMetrics()


@pytest.fixture
def collector(tmp_path: Path, metrics: RouteMetrics) -> Iterator[Collector]:
    log = Segments(tmp_path, segment=10**6, age=3600, total=10**7)
    yield Collector(log, metrics, LineSequence(tmp_path / "received.json"))
    log.close()


def kept(folder: Path) -> list[Entry]:
    return [decode(line) for file in segments(folder) for line in file.read_bytes().splitlines()]


def test_what_is_missing_is_counted(collector: Collector, metrics: RouteMetrics) -> None:
    collector.take([line(number) for number in (10, 11, 15, 16)])
    assert (metrics.lines, metrics.lost) == (4, 3)
    collector.take([line(0, worker=2), line(1, worker=2)])  # another worker counts for itself
    assert metrics.lost == 3


def test_what_is_lost_while_the_collector_starts_again_is_counted(tmp_path: Path, metrics: RouteMetrics) -> None:
    for numbers in ((1, 2), (6, 7)):
        log = Segments(tmp_path, segment=10**6, age=3600, total=10**7)
        Collector(log, metrics, LineSequence(tmp_path / "received.json")).take([line(number) for number in numbers])
        log.close()
    assert (metrics.lines, metrics.lost) == (4, 3)


def test_the_oldest_workers_are_forgotten(tmp_path: Path) -> None:
    numbering = LineSequence(tmp_path / "received.json")
    for worker in range(1, 66):
        numbering.missed(worker, 1)
    assert (numbering.missed(65, 5), numbering.missed(2, 5), numbering.missed(1, 5)) == (3, 3, 0)


def test_fewer_numbers_take_the_place_of_more(tmp_path: Path) -> None:
    file = tmp_path / "received.json"
    file.write_text('{"1": 1000000, "2": "x"}')  # which cannot be read
    numbering = LineSequence(file)
    numbering.missed(3, 7)
    numbering.save()
    assert LineSequence(file).missed(3, 9) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"1@2": "x"}', "{"])
def test_numbers_that_cannot_be_read_are_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "received.json"
    file.write_text(content)
    assert LineSequence(file).missed(1, 5) == 0


@pytest.fixture
def pipe() -> Iterator[LogPipe]:
    made = LogPipe()
    yield made
    made.close()


async def counted(metrics: RouteMetrics, **wanted: int) -> None:
    async def reached() -> bool:
        return all(getattr(metrics, name) == number for name, number in wanted.items())

    await eventually(reached, f"the collector to have counted {wanted}")


async def test_what_was_sent_before_the_end_is_kept(
    collector: Collector, metrics: RouteMetrics, tmp_path: Path, pipe: LogPipe
) -> None:
    os.write(pipe.writer, line(0) + b"\n")
    collecting = asyncio.create_task(collector.collect(pipe.reader))
    await counted(metrics, lines=1)
    for number in range(1, 3000):
        os.write(pipe.writer, line(number) + b"\n")
    collector.finish()
    await collecting
    assert (metrics.lines, metrics.lost, len(kept(tmp_path))) == (3000, 0, 3000)


async def test_a_full_pipe_makes_nobody_wait_and_what_it_did_not_take_is_counted(
    collector: Collector, metrics: RouteMetrics, pipe: LogPipe
) -> None:
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while os.write(pipe.writer, line(taken) + b"\n"):
            taken += 1
    collecting = asyncio.create_task(collector.collect(pipe.reader))
    await counted(metrics, lines=taken)
    os.write(pipe.writer, line(taken + 7) + b"\n")
    await counted(metrics, lost=7)
    collector.finish()
    await collecting


async def test_a_collector_ends_when_nobody_is_left_to_write(
    collector: Collector, metrics: RouteMetrics, pipe: LogPipe
) -> None:
    collecting = asyncio.create_task(collector.collect(pipe.reader))
    end, pipe.writer = pipe.writer, os.open(os.devnull, os.O_WRONLY)
    os.write(end, line(1) + b"\n" + line(2))  # the last one's writer was cut off
    os.close(end)
    async with asyncio.timeout(10):
        await collecting
    assert metrics.lines == 2


def test_threads_that_overtake_each_other_lose_nothing(collector: Collector, metrics: RouteMetrics) -> None:
    collector.take([line(number) for number in (1, 3, 2, 6, 4, 5, 7)])
    assert metrics.lost == 0


def test_a_subject_is_remembered(collector: Collector, tmp_path: Path) -> None:
    collector.take(
        [
            line(1, token="AA", subject="ana"),
            line(2, token="AA"),
            line(3, token="BB"),
            line(4, token="CC", subject="eve", status=401),  # revoked: not hers to be remembered by
            line(5, token="CC"),
        ],
    )
    assert [entry.subject for entry in kept(tmp_path)] == ["ana", "ana", None, "eve", None]


def test_other_lines_are_no_requests(collector: Collector, metrics: RouteMetrics, tmp_path: Path) -> None:
    collector.take([b"Server web/1 is DOWN", b"", line()])
    assert (metrics.lines, len(kept(tmp_path))) == (1, 1)


def test_a_disk_that_takes_nothing(
    collector: Collector, metrics: RouteMetrics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tmp_path)
    collector.take([line(1)])
    collector.take([line(2), line(3)])
    assert (metrics.lines, metrics.lost) == (3, 3)
    assert capsys.readouterr().err.count("cannot be written") == 1
    tmp_path.mkdir()
    collector.take([line(4)])
    assert len(kept(tmp_path)) == 1


def test_the_metrics(collector: Collector, metrics: RouteMetrics) -> None:
    collector.take([line(1, total=3), line(2, total=700, method='X"\\'), line(3, total=99_999, status=503)])
    text = metrics.text()
    assert 'escala_route_requests_total{route="/data",service="web",method="GET",status="200"} 1' in text
    assert 'method="other"' in text
    assert 'escala_route_duration_seconds_bucket{route="/data",le="0.005"} 1' in text
    assert 'escala_route_duration_seconds_bucket{route="/data",le="1"} 2' in text
    assert 'escala_route_duration_seconds_bucket{route="/data",le="+Inf"} 3' in text
    assert 'escala_route_duration_seconds_sum{route="/data"} 100.702' in text
