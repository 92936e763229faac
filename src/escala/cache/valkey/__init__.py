"""The level of the cache that is in Valkey: connections, what is stored, what is told, and reports."""
