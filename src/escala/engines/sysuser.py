"""The system user that PostgreSQL runs as when Escala runs as root."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from escala.errors import EngineFailed

USER = "escala"


def ensure() -> pwd.struct_passwd:
    """Return the user's passwd entry; create the user if it does not exist."""
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        pass
    useradd = shutil.which("useradd") or shutil.which("useradd", path="/usr/sbin:/sbin")
    if useradd is None:
        raise EngineFailed(
            "PostgreSQL", f"does not run as root, and there is no useradd command to create the user {USER!r}"
        )
    command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", USER]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0 and USER not in {entry.pw_name for entry in pwd.getpwall()}:
        raise EngineFailed("PostgreSQL", f"does not run as root, and useradd failed: {made.stderr.strip()}")
    return pwd.getpwnam(USER)


def barrier(path: Path, user: pwd.struct_passwd) -> Path | None:
    """Return the topmost folder above `path` that `user` cannot enter, or None."""
    for folder in reversed(path.resolve().parents):
        if not folder.exists():
            return None
        status = folder.stat()
        owner, group = status.st_uid == user.pw_uid, status.st_gid == user.pw_gid
        needed = 0o100 if owner else 0o010 if group else 0o001
        if not status.st_mode & needed:
            return folder
    return None


def running_as_root() -> bool:
    return os.geteuid() == 0
