"""[project]: the project's name, and where it keeps its state."""

from pydantic import Field

from escala.config.section import Section
from escala.config.types import CommandLine, Name

USER_STATE = "user"
"""The value of `project.state` that stands for the user's data folder."""


class ProjectSettings(Section):
    name: Name
    state: str = Field(default=".escala", min_length=1)
    """The folder for data, logs, keys and sockets, relative to escala.toml; "user" is the user's data folder."""
    prepare: CommandLine | None = None
    """A command that runs on every start, after the engines and before the replicas: for migrations or initial data."""
