"""Options that several commands share, declared once."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from escala.config import find
from escala.errors import ProjectNotFound
from escala.project.project import Project

File = Annotated[
    Path | None,
    typer.Option("--file", "-f", metavar="PATH", help="The project's escala.toml. Default: the nearest one upwards."),
]
LongFile = Annotated[Path | None, typer.Option("--file", metavar="PATH", help="The project's escala.toml.")]
"""The same option for commands in which -f means --follow."""

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as gateway.bind=:9000. May be repeated."),
]


def open_project(file: Path | None, settings: list[str] | None) -> Project:
    return Project.open(file, settings=settings or ())


def command_line(command: str, project: Project, settings: Sequence[str]) -> str:
    """Return the command line that runs a command on a running `project` from the working folder."""
    try:
        here = find(Path.cwd()) == project.file
    except ProjectNotFound:
        here = False
    # Of all settings, only project.state is needed: it decides where a running project is found.
    state = [word for setting in settings if setting.startswith("project.state=") for word in ("--set", setting)]
    place = [] if here else ["--file", str(project.file)]
    return shlex.join(["escala", command, *place, *state])
