"""The settings of a replica, read from its environment variables. The library reads no other configuration.

The supervisor sets these variables for the replicas that it starts. If you run a replica in a container of your own,
set them yourself. The variables for the engines' URLs have the same names as those that override escala.toml.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Environment:
    project: str = "escala"
    """ESCALA_PROJECT__NAME: part of the prefix of every key in Valkey."""
    service: str = ""
    """ESCALA_SERVICE: the service this process is a replica of."""
    replica: str = ""
    """ESCALA_REPLICA: the replica's name, such as "microservice/1"."""
    node: str = ""
    """ESCALA_NODE: the supervisor that started the process; it takes back the jobs of a worker that died."""
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
    """ESCALA_PUBLIC: path prefixes that need no token, separated by spaces.

    A prefix that begins with "!" does need one, such as "!/admin".
    """
    cache_entries: str = "10000"
    """ESCALA_CACHE__ENTRIES: the maximum number of entries in L1; 0 turns L1 off."""
    cache_bytes: str = "64MiB"
    """ESCALA_CACHE__BYTES: the maximum size of L1."""
    cache_value: str = "4MiB"
    """ESCALA_CACHE__VALUE: the maximum size of one value in Valkey, compressed."""
    cache_compress: str = "4KiB"
    """ESCALA_CACHE__COMPRESS: the size from which values in Valkey are compressed."""
    database_pool: str = "10"
    """ESCALA_DATABASE__POOL: the maximum number of connections to PostgreSQL."""
    data: str = ""
    """ESCALA_DATA: a folder for the project's own files, shared by all replicas on this machine."""

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> "Environment":
        environ = os.environ if environ is None else environ
        return cls(**{field: environ[name] for field, name in VARIABLES.items() if name in environ})

    def variables(self) -> dict[str, str]:
        """Return the environment variables from which `read` builds an equal Environment."""
        return {VARIABLES[field.name]: getattr(self, field.name) for field in fields(self)}


def is_under(path: str, prefix: str) -> bool:
    """Return whether `prefix` covers `path`. Only whole path segments match: "/a" covers "/a/b" but not "/ab"."""
    return path == prefix or path.startswith(f"{prefix.rstrip('/')}/")


VARIABLES = {
    "project": "ESCALA_PROJECT__NAME",
    "service": "ESCALA_SERVICE",
    "replica": "ESCALA_REPLICA",
    "node": "ESCALA_NODE",
    "postgres": "ESCALA_ENGINES__POSTGRES__URL",
    "valkey": "ESCALA_ENGINES__VALKEY__URL",
    "jwks": "ESCALA_JWKS",
    "issuer": "ESCALA_AUTH__ISSUER",
    "audience": "ESCALA_AUTH__AUDIENCE",
    "public": "ESCALA_PUBLIC",
    "cache_entries": "ESCALA_CACHE__ENTRIES",
    "cache_bytes": "ESCALA_CACHE__BYTES",
    "cache_value": "ESCALA_CACHE__VALUE",
    "cache_compress": "ESCALA_CACHE__COMPRESS",
    "database_pool": "ESCALA_DATABASE__POOL",
    "data": "ESCALA_DATA",
}
