"""The client of the control socket, used by the command line and other callers."""

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from escala.control.messages import AnyRequest, Applied, OperationStatus, Refusal
from escala.control.status import Status
from escala.errors import ControlFailed, EscalaError, NotRunning, TimedOut
from escala.project.project import Project

_TIMEOUT = 60.0
"""The timeout of one request in seconds. No single request waits for long work: operations and events do that."""
_SILENCE = 20.0
"""Seconds without an event or a heartbeat after which a stream counts as lost."""

_OTHER_VERSION = "has another version than this command; stop the project and start it again with `escala up`"

Answer = TypeVar("Answer")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._seconds)
        self.sock.connect(str(self._path))


class Client:
    """Talks to the supervisor of a project. Its methods raise NotRunning if there is none."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def status(self, *, brief: bool = False) -> Status:
        """Return what runs. A brief answer leaves out memory, jobs and cache."""
        return self._decode(self._call("GET", "/status?brief" if brief else "/status"), Status)

    def changes(self) -> Applied:
        """Return what an `apply` would change."""
        return self._decode(self._call("GET", "/changes"), Applied)

    def begin(self, request: AnyRequest) -> OperationStatus:
        """Begin an operation; raise the supervisor's error if it is refused."""
        return self._decode(self._call("POST", "/operations", request), OperationStatus)

    def operation(self, identifier: str) -> OperationStatus:
        return self._decode(self._call("GET", f"/operations/{identifier}"), OperationStatus)

    def stop(self) -> None:
        self._call("POST", "/stop")

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield events from now on.

        The first one is empty. An empty one also comes whenever there was no event for a while.
        """
        with self._connected(_SILENCE) as connection:
            connection.request("GET", "/events")
            response = connection.getresponse()
            while line := response.readline():
                yield msgspec.json.decode(line) if line.strip() else {}

    def follow(
        self,
        operation: OperationStatus,
        timeout: float,
        progress: Callable[[OperationStatus], None] = lambda status: None,
        *,
        until: Callable[[OperationStatus], bool] = lambda status: False,
    ) -> OperationStatus:
        """Return when an operation has succeeded, or `until` is true for its status. `progress` gets each new status.

        Raises the operation's error if it failed, and TimedOut after `timeout` seconds. The operation then continues.
        """
        end = time.monotonic() + timeout
        status, asked_at = operation, 0.0
        for event in self.events():
            # At least once a second whatever comes: its last event may have been dropped from a full queue.
            if not event or event.get("id") == operation.id or time.monotonic() - asked_at > 1:
                status, asked_at = self.operation(operation.id), time.monotonic()
                progress(status)
                if status.state == "failed" and status.error is not None:
                    raise _raised(status.error)
                if status.state == "succeeded" or until(status):
                    return status
            if time.monotonic() > end:
                raise TimedOut(status.step or status.kind, timeout)
        raise ControlFailed(self._project.name, "has ended meanwhile")

    @contextmanager
    def _connected(self, timeout: float) -> Iterator[_UnixConnection]:
        connection = _UnixConnection(self._project.layout.control_socket, timeout)
        try:
            yield connection
        except (FileNotFoundError, ConnectionError):
            raise NotRunning(self._project.name) from None
        except (OSError, http.client.HTTPException) as error:
            raise ControlFailed(self._project.name, f"does not answer: {error}") from None
        finally:
            connection.close()

    def _call(self, method: str, path: str, body: msgspec.Struct | None = None) -> bytes:
        with self._connected(_TIMEOUT) as connection:
            connection.request(method, path, msgspec.json.encode(body) if body is not None else None)
            response = connection.getresponse()
            answer = response.read()
        if response.status == 400:
            raise ControlFailed(self._project.name, f"{_OTHER_VERSION} ({_refused(answer)})")
        if response.status >= 300:
            raise _refused(answer) or ControlFailed(
                self._project.name, f"answered {response.status} to {method} {path}"
            )
        return answer

    def _decode(self, answer: bytes, kind: type[Answer]) -> Answer:
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.MsgspecError:
            raise ControlFailed(self._project.name, _OTHER_VERSION) from None


def _refused(answer: bytes) -> EscalaError | None:
    """Return the error that the supervisor answered with, including its exit code; None if there is none."""
    try:
        return _raised(msgspec.json.decode(answer, type=Refusal))
    except msgspec.MsgspecError:
        return None


def _raised(refusal: Refusal) -> EscalaError:
    error = EscalaError(refusal.error)
    error.exit_code = refusal.exit_code
    return error
