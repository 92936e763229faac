"""Detects changes of the certificate files."""

from collections.abc import Callable
from pathlib import Path

from escala.project.project import Project


class CertificateWatch:
    """Compares the files' modification times and sizes with those that it saw before, first when it was created."""

    def __init__(self, project: Callable[[], Project]) -> None:
        """`project` returns the project as it currently runs.

        If its certificate path has changed, a reload has already read the files at the new path.
        """
        self._project = project
        self._path = self._configured()
        self._seen = self._found = self._stat()

    def changed(self) -> bool:
        """Whether the files have changed since the last reload attempt, and have been stable since the last call.

        A deletion counts as a change.
        """
        if self._path != self._configured():  # changed by an apply, which has read the files
            self._path = self._configured()
            self._seen = self._found = self._stat()
        now = self._stat()
        still, self._found = now == self._found, now
        if not still or now == self._seen:
            return False
        self._seen = now
        return True

    def _configured(self) -> Path | None:
        tls = self._project().config.gateway.tls
        return self._project().root / tls.certificates.expanduser() if tls is not None else None

    def _stat(self) -> tuple[tuple[Path, int, int], ...]:
        if self._path is None:
            return ()
        try:
            files = sorted(self._path.iterdir()) if self._path.is_dir() else [self._path]
            return tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
        except OSError:
            return ()
