"""The engines under Escala: embedded (started from a wheel) or external (a URL)."""

from escala.config import Config
from escala.engines.engine import Engine
from escala.engines.postgres import EmbeddedPostgres, ExternalPostgres
from escala.engines.valkey import EmbeddedValkey, ExternalValkey
from escala.layout import Layout

__all__ = ["Engine", "postgres_engine", "valkey_engine"]


def postgres_engine(config: Config, layout: Layout) -> Engine:
    url = config.engines.postgres.url
    return ExternalPostgres(url) if url else EmbeddedPostgres(config.engines.postgres, layout)


def valkey_engine(config: Config, layout: Layout) -> Engine:
    url = config.engines.valkey.url
    return ExternalValkey(url) if url else EmbeddedValkey(config.engines.valkey, layout)
