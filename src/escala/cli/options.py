"""Options that several commands share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

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
