"""How many jobs of a task run at a time, how often they begin, and whether a second one is made."""

import hashlib
from collections.abc import Mapping
from typing import Any

from escala.errors import TaskArguments
from escala.units import parse_duration
from escala.values.template import Template


class Limits:
    """The limits of one task. Raises ValueError for one that is not possible."""

    def __init__(
        self,
        task: str,
        *,
        concurrency: int | None = None,
        concurrency_key: str | None = None,
        rate: str | None = None,
        unique: str | bool = False,
        unique_for: str | None = None,
    ) -> None:
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, not {concurrency}")
        if concurrency_key is not None and concurrency is None:
            raise ValueError("concurrency_key needs concurrency: how many jobs of one key run at a time")
        if unique_for is not None and not unique:
            raise ValueError("unique_for needs unique: which jobs are alike")
        self.concurrency = concurrency
        self.unique = unique if unique is not False else None
        self.unique_for = parse_duration(unique_for) if unique_for else 0.0
        self.rate = _parse_rate(rate) if rate else None
        """How many jobs begin in how many seconds; None for any number."""
        self._task = task
        self._key = Template(concurrency_key, "concurrency_key") if concurrency_key else None
        self._unique = Template(unique, "unique") if isinstance(unique, str) else None

    def require(self, names: tuple[str, ...]) -> None:
        """Raise ValueError if a key has a placeholder for an argument that the function does not have."""
        for template in (self._key, self._unique):
            if template is not None and (unknown := template.names - set(names)):
                raise ValueError(f"task {self._task!r} has no argument {min(unknown)!r}, which a key names")

    def key(self, arguments: Mapping[str, Any]) -> str | None:
        """Return what the jobs have in common of which only so many run at a time; None without such a limit."""
        if self.concurrency is None:
            return None
        return self._task if self._key is None else f"{self._task}:{self._filled(self._key, arguments)}"

    def unique_key(self, arguments: Mapping[str, Any], text: str) -> str | None:
        """Return what the jobs have in common of which only one is made; None if each may be made."""
        if self.unique is None:
            return None
        if self._unique is None:
            return f"{self._task}:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"
        return f"{self._task}:{self._filled(self._unique, arguments)}"

    def _filled(self, template: Template, arguments: Mapping[str, Any]) -> str:
        try:
            return template.fill(arguments)
        except (TypeError, AttributeError, LookupError) as error:
            raise TaskArguments(self._task, f"a key cannot be made of them: {error}") from None


def _parse_rate(text: str) -> tuple[int, float]:
    """Return the number of jobs, and the seconds, of "10/1m"."""
    count, found, period = text.partition("/")
    if not found or not count.strip().isdecimal() or int(count) < 1:
        raise ValueError(f'expected a rate such as "10/1m", not {text!r}')
    return int(count), parse_duration(period.strip())
