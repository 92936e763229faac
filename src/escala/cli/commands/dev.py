"""The command `escala dev`."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import PurePath

import watchfiles

from escala.cli.commands.up import Bind, run_project
from escala.cli.support.options import File, Settings
from escala.config import Config
from escala.control.messages import Apply, Roll
from escala.errors import EscalaError, RolloutStopped
from escala.project.project import Project
from escala.supervisor.supervisor import Supervisor

_SOON = 1.0
"""Seconds after a roll-out in which a change is taken for one that the app made, not a person."""
_TIMES = 3
"""How many such changes in a row it takes until a file is ignored."""


def dev(file: File = None, settings: Settings = None, bind: Bind = None) -> None:
    """Run the project for development: one replica per service, replaced whenever a file of the project changes.

    The table `dev` of escala.toml says which files count. Gateway, tokens, cache and jobs work as with `escala up`.

    If a new version cannot start, its traceback appears here, and the previous version continues to serve.
    """
    chosen = [*(settings or ()), *([f"gateway.bind={bind}"] if bind else ())]
    project = Project.open(file, settings=chosen, single=True)
    asyncio.run(run_project(project, chosen, echo=True, beside=_follow_changes))


async def _follow_changes(supervisor: Supervisor) -> None:
    """Apply changes of files as they occur."""
    project = supervisor.project
    wheel = Wheel()
    state = f"{project.layout.state}/"

    def counts(change: watchfiles.Change, path: str) -> bool:
        name = path.removeprefix(f"{project.root}/")
        followed = name in always(supervisor.project) or is_followed(supervisor.project.config, name)
        return followed and not path.startswith(state) and usual(change, path)

    usual = watchfiles.DefaultFilter()  # ignores .git, __pycache__, .venv, node_modules and similar
    async for changes in watchfiles.awatch(project.root, watch_filter=counts):
        found = sorted({path.removeprefix(f"{project.root}/") for _, path in changes})
        for name in wheel.turn([name for name in found if name not in always(supervisor.project)], time.monotonic()):
            supervisor.say(
                f"{name} changes each time the replicas start, so the app seems to write it. Its changes are ignored"
                f' until it changes at another time. To ignore it always, add to escala.toml: [dev] ignore = ["{name}"]'
            )
        names = [name for name in found if name not in wheel.left_out]
        if not names:
            continue
        supervisor.say(f"changed: {', '.join(names[:5])}{' and more' if len(names) > 5 else ''}")
        try:
            await _take_over(supervisor, names)
        except (EscalaError, OSError) as error:
            supervisor.say(str(error))
        wheel.rolled_at = time.monotonic()


def always(project: Project) -> set[str]:
    """Return the files whose changes always count, regardless of [dev]."""
    return {project.file.name, *(each.env_file for each in project.config.services.values() if each.env_file)}


def is_followed(config: Config, name: str) -> bool:
    """Whether a change of a file counts, according to [dev]. `name` is its path relative to the project."""
    return _matches(name, config.dev.watch) and not _matches(name, config.dev.ignore)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether any of the patterns matches. A pattern with "/" is matched against the path, others against the name."""
    return any(fnmatch(name if "/" in pattern else PurePath(name).name, pattern) for pattern in patterns)


class Wheel:
    """Detects files that the app itself writes when it starts.

    Otherwise, each write would replace the replicas, whose start would write again, and so on for ever.
    """

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        self.rolled_at: float | None = None
        """time.monotonic() at the end of the last roll-out."""
        self._times: Counter[str] = Counter()
        self._caught: Counter[str] = Counter()

    def turn(self, names: Sequence[str], now: float) -> list[str]:
        """Count changes; return the files that are ignored from now on.

        If an ignored file changes at another time, it is no longer ignored.
        """
        if self.rolled_at is None or now - self.rolled_at > _SOON:
            self._times.clear()
            # Only once: a file that was caught twice is written by the app at other times too, and stays ignored.
            self.left_out.difference_update(name for name in names if self._caught[name] < 2)
            return []
        self._times = Counter({name: self._times[name] + 1 for name in names})
        caught = [name for name in names if self._times[name] >= _TIMES and name not in self.left_out]
        self.left_out.update(caught)
        self._caught.update(caught)
        return caught


async def _take_over(supervisor: Supervisor, names: Sequence[str]) -> None:
    """Apply a changed escala.toml, replace replicas for other changes, and return when that is done."""
    operations, rolled = supervisor.operations, list[str]()
    if supervisor.project.file.name in names:
        applying = operations.start(Apply())
        try:
            await operations.wait(applying)
        except (EscalaError, OSError) as error:
            supervisor.say(str(error))
        rolled = applying.applied.rolling if applying.applied else []
    if any(name != supervisor.project.file.name for name in names):
        rest = [name for name in supervisor.project.config.services if name not in rolled]
        with contextlib.suppress(RolloutStopped):  # an event has reported it
            await operations.wait(operations.start(Roll(rest)))
