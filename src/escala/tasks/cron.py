"""When the jobs of a task are made by themselves: a line of crontab(5), in a time zone."""

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError


class Cron:
    """Raises ValueError for a line or a zone that cannot be understood."""

    def __init__(self, line: str, timezone: str) -> None:
        self.line = line
        try:
            self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f'there is no time zone {timezone!r}; one is named like "Europe/Madrid"') from None
        try:
            next(CronSim(line, datetime(2000, 1, 1, tzinfo=self._zone)))
        except CronSimError as error:
            raise ValueError(f'cron {line!r}: {error}; it is a line such as "0 3 * * 1-5"') from None
        except StopIteration:
            raise ValueError(f"cron {line!r} has no tick") from None

    def after(self, moment: datetime) -> datetime:
        """Return the first tick after a moment."""
        return next(CronSim(self.line, moment.astimezone(self._zone)))

    def before(self, moment: datetime) -> datetime:
        """Return the last tick before a moment."""
        return next(CronSim(self.line, moment.astimezone(self._zone), reverse=True))
