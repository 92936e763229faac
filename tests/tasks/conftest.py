from tests.queue import connected, connection, empty_queue, pool

__all__ = ["connected", "connection", "empty_queue", "pool"]
