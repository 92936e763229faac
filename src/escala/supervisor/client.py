"""The command line's side of the control socket."""

import http.client
import socket
from pathlib import Path

import msgspec

from escala.errors import EscalaError, NotRunning
from escala.project import Project
from escala.supervisor.status import Status

_TIMEOUT = 10.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(str(self._path))


class Client:
    """Talks to the supervisor of a project; NotRunning where there is none."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def status(self) -> Status:
        return msgspec.json.decode(self._call("GET", "/status"), type=Status)

    def stop(self) -> None:
        self._call("POST", "/stop")

    def _call(self, method: str, path: str) -> bytes:
        connection = _UnixConnection(self._project.layout.control_socket)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (FileNotFoundError, ConnectionError):
            raise NotRunning(self._project.name) from None
        except (OSError, http.client.HTTPException) as error:
            raise EscalaError(f"the supervisor of {self._project.name} does not answer: {error}") from None
        finally:
            connection.close()
        if response.status >= 300:
            raise EscalaError(f"the supervisor answered {response.status} to {method} {path}")
        return body
