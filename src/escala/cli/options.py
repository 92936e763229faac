"""Options that several commands share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

from escala.config import find
from escala.errors import ProjectNotFound
from escala.project import Project

File = Annotated[
    Path | None,
    typer.Option("--file", "-f", metavar="PATH", help="The project's escala.toml; by default the nearest one upward."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a setting, such as gateway.bind=:9000. May be given again."
    ),
]


def open_project(file: Path | None, settings: list[str] | None) -> Project:
    return Project.open(file, settings=settings or ())


def command_line(command: str, project: Project) -> str:
    """Return how to call a command for `project` from the working folder."""
    try:
        here = find(Path.cwd()) == project.file
    except ProjectNotFound:
        here = False
    return f"escala {command}" if here else f"escala {command} --file {project.file}"
