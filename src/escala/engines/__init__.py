"""The engines that Escala builds on: embedded (started from a wheel) or external (at a URL)."""

from escala.config import Config
from escala.engines import postgres, valkey
from escala.engines.engine import Engine
from escala.engines.external import External
from escala.project.layout import Layout

__all__ = ["Engine", "postgres_engine", "valkey_engine"]


def postgres_engine(config: Config, layout: Layout) -> Engine:
    settings = config.engines.postgres
    if settings.url:
        return External("postgres", settings.url, postgres.probe)
    return postgres.EmbeddedPostgres(settings, layout, config.database_connections)


def valkey_engine(config: Config, layout: Layout) -> Engine:
    settings = config.engines.valkey
    if settings.url:
        return External("valkey", settings.url, valkey.probe)
    return valkey.EmbeddedValkey(settings, layout)
