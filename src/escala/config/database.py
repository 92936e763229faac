"""[database]: connections of the library to PostgreSQL."""

from pydantic import Field

from escala.config.section import Section


class DatabaseSettings(Section):
    pool: int = Field(default=10, ge=1, le=1000)
    """Connections to PostgreSQL that one replica holds at most; a worker holds four more for its queue."""
