"""Where a project keeps its state.

::

    .escala/            0700 (as root 0711, so that PostgreSQL's user can pass through)
      run/              sockets, lock, the list of running processes
      log/              a file a replica
      keys/             the signing key and the public keys
      gateway/          HAProxy's configuration
      postgres/         owned by PostgreSQL's user: data/ and run/ (its socket)
      data/             for the project's own files ($ESCALA_DATA)

Files are 0600, folders 0700. Whatever another process reads is written by `write_atomically`.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from escala.config import USER_STATE
from escala.errors import StartError

_OWN_NAMES = {"run", "log", "keys", "gateway", "postgres", "data"}
_STRANGE = "\"'$,\\`"
"""Characters that mean something to an engine, or to a shell, where it is told of a file, within quotes too."""

_LONGEST_SOCKET = 107  # sun_path of sockaddr_un(7) holds 108 bytes, the last of them NUL
_LONGEST_OF_HAPROXY = 97  # which keeps ten of them for a name of its own while it binds


@dataclass(frozen=True)
class Layout:
    """The paths under one state folder."""

    state: Path

    @classmethod
    def of(cls, setting: str, project: str, root: Path) -> "Layout":
        """Return the layout that `project.state` describes for the project in folder `root`."""
        if setting != USER_STATE:
            return cls((root / Path(setting).expanduser()).absolute())
        # PostgreSQL does not run as root, and its own user cannot reach into root's home.
        base = Path("/var/lib/escala") if os.geteuid() == 0 else platformdirs.user_data_path("escala", appauthor=False)
        return cls(base / project)

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def gateway(self) -> Path:
        return self.state / "gateway"

    @property
    def postgres(self) -> Path:
        return self.state / "postgres"

    @property
    def data(self) -> Path:
        return self.state / "data"

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def processes(self) -> Path:
        return self.run / "processes.json"

    @property
    def signing_key(self) -> Path:
        return self.keys / "signing.json"

    @property
    def jwks(self) -> Path:
        return self.keys / "jwks.json"

    @property
    def next_key(self) -> Path:
        return self.keys / "next.json"

    @property
    def trusted_keys(self) -> Path:
        return self.keys / "trusted.json"

    @property
    def access_log(self) -> Path:
        return self.log / "access"

    def replica_socket(self, service: str, number: int) -> Path:
        return self.run / f"{service}.{number}.sock"

    def require_replica_sockets(self, service: str, most: int) -> None:
        """Raise StartError where the socket of one of so many replicas would have too long a path."""
        _require_short(self.replica_socket(service, most), _LONGEST_OF_HAPROXY)

    def clear_replica_sockets(self) -> None:
        """Remove what replicas leave behind that were killed, or stopped with everything else."""
        for path in self.run.glob("*.*.sock"):
            with contextlib.suppress(OSError):
                path.unlink()

    def require_usable(self) -> None:
        """Raise StartError where an engine could not use the state folder's path."""
        strange = sorted(
            {character for character in str(self.state) if character in _STRANGE or not character.isprintable()}
        )
        if strange:
            raise StartError(
                f"{self.state} has {' '.join(map(repr, strange))} in it, which engines and shells "
                "do not take in a path; choose another folder with project.state"
            )
        _require_short(self.postgres / "run" / ".s.PGSQL.5432", _LONGEST_SOCKET)
        _require_short(self.run / "unavailable.sock", _LONGEST_OF_HAPROXY)

    def create(self) -> None:
        """Make the folders, with their modes; raise StartError where they cannot be made, or not be used."""
        self.require_usable()
        try:
            self._make_state()
            for folder in (self.run, self.log, self.access_log, self.keys, self.gateway, self.data):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise StartError(f"cannot make the state folder {error.filename}: {error.strerror}") from None

    def _make_state(self) -> None:
        """Make the state folder, or take an existing one as it is if nothing of somebody else's is in it."""
        try:
            self.state.mkdir(parents=True)
        except FileExistsError:
            foreign = {path.name for path in self.state.iterdir()} - _OWN_NAMES
            if foreign and not self.run.exists():
                example = min(foreign)
                raise StartError(
                    f"{self.state} holds other things ({example!r}); choose a new or empty folder with project.state"
                ) from None
        else:
            self.state.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _require_short(socket: Path, longest: int) -> None:
    if len(os.fsencode(socket)) > longest:
        raise StartError(
            f"{socket} is longer than the {longest} bytes that this Unix socket's path may have; "
            "choose a shorter folder with project.state"
        )
