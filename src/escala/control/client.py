"""The command line's side of the control socket."""

import http.client
import socket
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from escala.control.messages import Applied, Apply, Canary, Drain, Refusal, Reload, Revoke, Roll, Scale
from escala.control.status import Status
from escala.errors import EscalaError, NotRunning
from escala.project.project import Project

_TIMEOUT = 60.0


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

    def status(self, *, brief: bool = False) -> Status:
        """Return what runs; without memory, jobs and cache where a brief answer will do."""
        return _decode(self._call("GET", "/status?brief" if brief else "/status"), Status)

    def stop(self) -> None:
        self._call("POST", "/stop")

    def scale(self, service: str, count: int) -> None:
        self._call("POST", "/scale", Scale(service, count))

    def drain(self, replica: str, drained: bool) -> None:
        self._call("POST", "/drain", Drain(replica, drained))

    def apply(self, *, dry: bool) -> Applied:
        return _decode(self._call("POST", "/apply", Apply(dry)), Applied)

    def roll(self, services: list[str] | None, canary: Canary | None = None) -> list[str]:
        """Begin to replace the replicas of services, of all for None; return which."""
        answer = self._call("POST", "/roll", Roll(services, canary))
        return _decode(answer, list[str])

    def revoke(self, kind: Literal["token", "user"], value: str, expires_at: float | None) -> None:
        self._call("POST", "/revoke", Revoke(kind, value, expires_at))

    def reload(self, what: str) -> None:
        self._call("POST", "/reload", Reload(what))

    def _call(self, method: str, path: str, body: msgspec.Struct | None = None) -> bytes:
        connection = _UnixConnection(self._project.layout.control_socket)
        try:
            connection.request(method, path, _encode(body))
            response = connection.getresponse()
            answer = response.read()
        except (FileNotFoundError, ConnectionError):
            raise NotRunning(self._project.name) from None
        except (OSError, http.client.HTTPException) as error:
            raise EscalaError(f"the supervisor of {self._project.name} does not answer: {error}") from None
        finally:
            connection.close()
        if response.status >= 300:
            raise _refused(answer) or EscalaError(f"the supervisor answered {response.status} to {method} {path}")
        return answer


Answer = TypeVar("Answer")


def _decode(answer: bytes, kind: type[Answer]) -> Answer:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError:
        raise EscalaError(
            "the running supervisor is of another version than this command; start it again with `escala up`"
        ) from None


def _encode(body: msgspec.Struct | None) -> bytes | None:
    return msgspec.json.encode(body) if body is not None else None


def _refused(answer: bytes) -> EscalaError | None:
    """Return what the supervisor raised, with its exit code."""
    try:
        refusal = msgspec.json.decode(answer, type=Refusal)
    except msgspec.MsgspecError:
        return None
    error = EscalaError(refusal.error)
    error.exit_code = refusal.exit_code
    return error
