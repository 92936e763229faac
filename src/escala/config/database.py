"""[database]: the library's connections to PostgreSQL."""

from pydantic import Field

from escala.config.section import Section


class DatabaseSettings(Section):
    pool: int = Field(default=10, ge=1, le=1000)
    """The maximum number of connections to PostgreSQL per replica. A worker holds four more for its queue."""
