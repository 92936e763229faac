"""Where a project keeps its state.

::

    .escala/            0700 (as root 0711, so that PostgreSQL's user can pass through)
      run/              sockets, lock, the list of running processes
      log/              one file per replica
      keys/             the signing key and the public keys
      gateway/          HAProxy's configuration
      postgres/         owned by PostgreSQL's user: data/ and run/ (its socket)
      data/             for the project's own files ($ESCALA_DATA)

Files have mode 0600, folders 0700. Files that other processes read are written by `write_atomically`.
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
"""Characters that are special in file paths for an engine or a shell, even within quotes."""

_LONGEST_SOCKET = 107  # sun_path of sockaddr_un(7) holds 108 bytes, the last of them NUL
_LONGEST_OF_HAPROXY = 97  # HAProxy needs ten bytes for a temporary name while it binds


@dataclass(frozen=True)
class Layout:
    """The paths under one state folder."""

    state: Path

    @classmethod
    def of(cls, setting: str, project: str, root: Path) -> "Layout":
        """Return the layout that `project.state` describes for the project in folder `root`."""
        if setting != USER_STATE:
            return cls((root / Path(setting).expanduser()).absolute())
        # PostgreSQL does not run as root, and its own user cannot access root's home folder.
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
        """Raise StartError if a socket path would be too long with `most` replicas."""
        _require_short(self.replica_socket(service, most), _LONGEST_OF_HAPROXY)

    def clear_replica_sockets(self) -> None:
        """Remove sockets left behind by replicas that were killed, or that stopped with the whole project."""
        for path in self.run.glob("*.*.sock"):
            with contextlib.suppress(OSError):
                path.unlink()

    def require_usable(self) -> None:
        """Raise StartError if an engine cannot use the state folder's path."""
        strange = sorted(
            {character for character in str(self.state) if character in _STRANGE or not character.isprintable()}
        )
        if strange:
            raise StartError(
                f"{self.state} contains {' '.join(map(repr, strange))}, which engines and shells do not accept "
                "in a path; choose another folder with project.state"
            )
        _require_short(self.postgres / "run" / ".s.PGSQL.5432", _LONGEST_SOCKET)
        _require_short(self.run / "unavailable.sock", _LONGEST_OF_HAPROXY)

    def create(self) -> None:
        """Create the folders with their modes; raise StartError if they cannot be created or used."""
        self.require_usable()
        try:
            self._make_state()
            for folder in (self.run, self.log, self.access_log, self.keys, self.gateway, self.data):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
        except OSError as error:
            raise StartError(f"cannot create the state folder {error.filename}: {error.strerror}") from None

    def _make_state(self) -> None:
        """Create the state folder, or use an existing one if it contains no unrelated files."""
        try:
            self.state.mkdir(parents=True)
        except FileExistsError:
            foreign = {path.name for path in self.state.iterdir()} - _OWN_NAMES
            if foreign and not self.run.exists():
                example = min(foreign)
                raise StartError(
                    f"{self.state} has unrelated files ({example!r}); choose a new or empty folder with project.state"
                ) from None
        else:
            self.state.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _require_short(socket: Path, longest: int) -> None:
    if len(os.fsencode(socket)) > longest:
        raise StartError(
            f"{socket} is too long: the path of this Unix socket may have at most {longest} bytes; "
            "choose a shorter folder with project.state"
        )
