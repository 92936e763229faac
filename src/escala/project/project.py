"""A project: its file, its configuration and its state folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from escala.config import Config, ReplicasSettings, RolloutSettings, find, load
from escala.gateway.topology.topology import Topology
from escala.project.layout import Layout


@dataclass(frozen=True)
class Project:
    file: Path
    config: Config
    layout: Layout
    settings: tuple[str, ...] = ()
    """Overrides from the command line."""
    single: bool = False
    """Whether each service has one replica without a fixed port, for development."""

    @classmethod
    def open(
        cls,
        file: Path | None = None,
        environ: Mapping[str, str] | None = None,
        settings: Sequence[str] = (),
        *,
        single: bool = False,
    ) -> "Project":
        """Load the project of `file`, or of the nearest escala.toml in the working folder or above it."""
        file = (file or find(Path.cwd())).absolute()
        config = load(file, os.environ if environ is None else environ, settings)
        if single:
            alone = {
                "replicas": ReplicasSettings(),
                "ports": (),
                "rollout": RolloutSettings.model_validate({"settle": "1ms"}),
            }
            services = {name: each.model_copy(update=alone) for name, each in config.services.items()}
            config = config.model_copy(update={"services": services})
        layout = Layout.of(config.project.state, config.project.name, file.parent)
        return cls(file, config, layout, tuple(settings), single)

    @cached_property
    def topology(self) -> Topology:
        """What the configuration means."""
        return Topology.of(self.config)

    @property
    def root(self) -> Path:
        return self.file.parent

    @property
    def name(self) -> str:
        return self.config.project.name
