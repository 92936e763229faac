"""Whether certificate files are not what they were."""

from pathlib import Path

from escala.project import Project


class Certificates:
    """Remembers the files' times and sizes, from when it was made."""

    def __init__(self, project: Project) -> None:
        tls = project.config.gateway.tls
        self._path = project.root / tls.certificates.expanduser() if tls is not None else None
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether they have changed since it was last asked, and lie still again."""
        now = self._look()
        before, self._seen = self._seen, now
        return bool(now) and before != now

    def _look(self) -> tuple[tuple[Path, int, int], ...]:
        if self._path is None:
            return ()
        files = sorted(self._path.iterdir()) if self._path.is_dir() else [self._path]
        try:
            return tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
        except OSError:
            return ()
