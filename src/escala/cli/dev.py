"""The command `escala dev`."""

import asyncio
from collections.abc import Sequence

import watchfiles

from escala.cli.options import File, Settings
from escala.cli.up import Bind, run_project
from escala.errors import EscalaError
from escala.project import Project
from escala.supervisor.supervisor import Supervisor

_ENDINGS = (".py", ".toml", ".env", ".json", ".yaml", ".yml", ".sql", ".html", ".js", ".ts", ".go", ".rb")


def dev(file: File = None, settings: Settings = None, bind: Bind = None) -> None:
    """Run the project for development: one replica a service, replaced whenever a file of the project changes.

    The gateway, tokens, cache and jobs are those of `escala up`. What cannot start shows its traceback here, and the
    version before it serves on.
    """
    chosen = [*(settings or ()), *([f"gateway.bind={bind}"] if bind else ())]
    project = Project.open(file, settings=chosen, single=True)
    asyncio.run(run_project(project, chosen, echo=True, beside=_follow_changes))


async def _follow_changes(supervisor: Supervisor) -> None:
    """Take over changes of files as they come."""
    project = supervisor.project
    state = f"{project.layout.state}/"

    def counts(change: watchfiles.Change, path: str) -> bool:
        return path.endswith(_ENDINGS) and not path.startswith(state) and usual(change, path)

    usual = watchfiles.DefaultFilter()  # without .git, __pycache__, .venv, node_modules and their like
    async for changes in watchfiles.awatch(project.root, watch_filter=counts):
        names = sorted({path.removeprefix(f"{project.root}/") for _, path in changes})
        supervisor.say(f"changed: {', '.join(names[:5])}{' and more' if len(names) > 5 else ''}")
        try:
            await _take_over(supervisor, names)
        except (EscalaError, OSError) as error:
            supervisor.say(str(error))


async def _take_over(supervisor: Supervisor, names: Sequence[str]) -> None:
    rolling: list[str] = []
    if supervisor.project.file.name in names:
        try:
            rolling = (await supervisor.apply(dry=False)).rolling
        except (EscalaError, OSError) as error:
            supervisor.say(str(error))
    if any(name != supervisor.project.file.name for name in names):
        supervisor.roll([name for name in supervisor.project.config.services if name not in rolling])
    await supervisor.wait_rolled()
