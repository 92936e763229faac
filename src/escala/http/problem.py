"""Errors as problem documents (RFC 9457), for Starlette and FastAPI apps.

``FastAPI(exception_handlers=problem.handlers())`` turns every error of an app into `application/problem+json`.
"""

import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from escala.errors import CacheUnavailable, DatabaseUnavailable, TaskArguments, UnknownTask
from escala.http.statuses import title

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """Raise this in a handler to answer with a problem document.

    `more` adds members to the document, such as the valid choices for a parameter.
    """

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def response(self) -> Response:
        """Return the document as a response."""
        document = {
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }
        return Response(msgspec.json.encode(document), self.status, self.headers, MEDIA_TYPE)


Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]


def handlers() -> dict[int | type[Exception], Handler]:
    """Return an app's exception handlers: Problem, HTTP and validation errors, missing engines (503), bugs (500)."""
    table: dict[int | type[Exception], Handler] = {
        Problem: _problem,
        HTTPException: _http,
        DatabaseUnavailable: _unavailable,
        CacheUnavailable: _unavailable,
        UnknownTask: _unknown_task,
        TaskArguments: _task_arguments,
        Exception: _bug,
    }
    with contextlib.suppress(ImportError):  # FastAPI is optional
        from fastapi.exceptions import RequestValidationError

        table[RequestValidationError] = _validation
    return table


async def _problem(request: Request, error: Problem) -> Response:
    return error.response()


async def _http(request: Request, error: HTTPException) -> Response:
    return Problem(error.status_code, str(error.detail), headers=error.headers).response()


async def _unavailable(request: Request, error: Exception) -> Response:
    return Problem(503, str(error), headers={"Retry-After": "1"}).response()


async def _unknown_task(request: Request, error: UnknownTask) -> Response:
    return Problem(422, str(error), tasks=error.known).response()


async def _task_arguments(request: Request, error: TaskArguments) -> Response:
    return Problem(422, str(error)).response()


async def _bug(request: Request, error: Exception) -> Response:
    # After sending this answer, Starlette raises the error again, so that the server logs the traceback.
    return Problem(500, "The service failed to handle this request.").response()


async def _validation(request: Request, error: Any) -> Response:
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return Problem(400, "The body is not valid JSON.").response()
    errors = [
        {"in": fault["loc"][0], "field": ".".join(map(str, fault["loc"][1:])), "reason": fault["msg"]}
        for fault in faults
    ]
    return Problem(422, "Some values are missing or invalid.", errors=errors).response()
