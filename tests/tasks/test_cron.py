from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from escala import task
from escala.tasks.cron import Cron
from escala.tasks.worker.ticking import _due


def test_ticks_in_a_zone_over_the_change_of_the_clock() -> None:
    cron = Cron("30 2 * * *", "Europe/Madrid")
    madrid = ZoneInfo("Europe/Madrid")
    spring = cron.after(datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert spring == datetime(2026, 3, 29, 3, 0, tzinfo=madrid)  # 2:30 does not exist on that day
    autumn = [cron.after(datetime(2026, 10, 24, 12, tzinfo=UTC))]
    autumn.append(cron.after(autumn[-1]))
    assert [tick.day for tick in autumn] == [25, 26]  # 2:30 comes twice on the 25th, and counts once


@pytest.mark.parametrize(
    ("line", "zone", "reason"),
    [
        ("* * *", "UTC", "Wrong number of fields"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("0 0 30 2 *", "UTC", "cron '0 0 30 2 \\*'"),
        ("* * * * *", "Europe/Atlantis", "no time zone 'Europe/Atlantis'"),
        ("* * * * *", "../etc/passwd", "no time zone"),
    ],
)
def test_lines_that_cannot_be_understood(line: str, zone: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Cron(line, zone)


def test_a_cron_needs_no_arguments() -> None:
    with pytest.raises(TypeError, match="its argument 'month' needs a default"):

        @task(name="x", cron="* * * * *")
        def report(month: int) -> None: ...


@task(name="five", cron="*/5 * * * *")
def five() -> None: ...


@pytest.mark.parametrize(
    ("latest", "now", "due"),
    [
        ("12:00", "12:04", None),
        ("12:00", "12:05", "12:05"),
        ("12:00", "12:09", "12:05"),
        ("12:00", "12:31", "12:30"),
        ("12:02", "12:04", None),
        ("12:30", "12:00", None),
    ],
)
def test_of_missed_ticks_the_latest_is_made_up_for(latest: str, now: str, due: str | None) -> None:
    def at(text: str) -> datetime:
        hours, minutes = map(int, text.split(":"))
        return datetime(2026, 5, 1, tzinfo=UTC) + timedelta(hours=hours, minutes=minutes)

    assert _due(five, at(latest), at(now)) == (at(due) if due else None)
