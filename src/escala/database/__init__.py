"""PostgreSQL for service authors: ``async with database.connection() as c``, and `migrate`."""

from escala.database.migrate import migrate
from escala.database.pool import Connection, Database, connection, slot

__all__ = ["Connection", "Database", "connection", "migrate", "slot"]
