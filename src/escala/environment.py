"""What a replica is told by its environment: the only thing the library part reads.

The supervisor writes these variables for the replicas that it starts; a replica in somebody's container gets them from
whoever runs it. The addresses of the engines have the names that override the same settings of escala.toml.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Environment:
    project: str = "escala"
    """ESCALA_PROJECT__NAME: prefix of everything kept in Valkey."""
    service: str = ""
    """ESCALA_SERVICE: the service this process is a replica of."""
    replica: str = ""
    """ESCALA_REPLICA: its name, such as "microservice/1"."""
    postgres: str = ""
    """ESCALA_ENGINES__POSTGRES__URL"""
    valkey: str = ""
    """ESCALA_ENGINES__VALKEY__URL"""
    jwks: str = ""
    """ESCALA_JWKS: path of the file with the public keys (RFC 7517)."""
    issuer: str = ""
    """ESCALA_AUTH__ISSUER"""
    audience: str = ""
    """ESCALA_AUTH__AUDIENCE"""
    public: str = "/health"
    """ESCALA_PUBLIC: path prefixes that need no token, and those that do ("!/admin"), separated by blanks."""
    cache_entries: str = "10000"
    """ESCALA_CACHE__ENTRIES"""
    database_pool: str = "10"
    """ESCALA_DATABASE__POOL: connections to PostgreSQL at most"""
    data: str = ""
    """ESCALA_DATA: a folder for the project's own files, the same for all replicas on this machine."""

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> "Environment":
        environ = os.environ if environ is None else environ
        return cls(**{field: environ[name] for field, name in VARIABLES.items() if name in environ})

    def variables(self) -> dict[str, str]:
        """Return the variables that `read` turns into this environment."""
        return {VARIABLES[field.name]: getattr(self, field.name) for field in fields(self)}


def is_under(path: str, prefix: str) -> bool:
    """Return whether a prefix of `public` covers a path: by whole segments."""
    return path == prefix or path.startswith(f"{prefix.rstrip('/')}/")


VARIABLES = {
    "project": "ESCALA_PROJECT__NAME",
    "service": "ESCALA_SERVICE",
    "replica": "ESCALA_REPLICA",
    "postgres": "ESCALA_ENGINES__POSTGRES__URL",
    "valkey": "ESCALA_ENGINES__VALKEY__URL",
    "jwks": "ESCALA_JWKS",
    "issuer": "ESCALA_AUTH__ISSUER",
    "audience": "ESCALA_AUTH__AUDIENCE",
    "public": "ESCALA_PUBLIC",
    "cache_entries": "ESCALA_CACHE__ENTRIES",
    "database_pool": "ESCALA_DATABASE__POOL",
    "data": "ESCALA_DATA",
}
