"""Whether certificate files are not what they were."""

from pathlib import Path

from escala.project.project import Project


class Certificates:
    """Remembers the files' times and sizes, from when it was made."""

    def __init__(self, project: Project) -> None:
        tls = project.config.gateway.tls
        self._path = project.root / tls.certificates.expanduser() if tls is not None else None
        self._seen = self._looked = self._look()

    def changed(self) -> bool:
        """Whether they are not what was last tried, and lie still since it was last asked; also when they are gone."""
        now = self._look()
        still, self._looked = now == self._looked, now
        if not still or now == self._seen:
            return False
        self._seen = now
        return True

    def _look(self) -> tuple[tuple[Path, int, int], ...]:
        if self._path is None:
            return ()
        try:
            files = sorted(self._path.iterdir()) if self._path.is_dir() else [self._path]
            return tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
        except OSError:
            return ()
