"""PostgreSQL for services: ``async with database.connection() as c``. `migrate` creates Escala's own tables."""

from escala.database.migrate import migrate
from escala.database.pool import Connection, Database, after_commit, connection, slot, transaction

__all__ = ["Connection", "Database", "after_commit", "connection", "migrate", "slot", "transaction"]
