"""GET /jobs: the caller's jobs, or all for a token with the scope `jobs`."""

from typing import Any
from urllib.parse import urlencode

import asyncpg
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from escala import database
from escala.auth import current
from escala.http.problem import Problem
from escala.services.jobs.access import sees_all
from escala.tasks.store import administration
from escala.tasks.store.administration import Search

_MOST = 500
_REPEATED = {"state": "states"}


async def listing(request: Request) -> Response:
    """GET /jobs?state=&queue=&task=&since=&until=&limit=&before=: jobs, the latest first, and the next page."""
    search = _search(request)
    try:
        async with database.connection() as connection:
            found = await administration.search(connection, search)
    except asyncpg.QueryCanceledError:
        raise Problem(503, "So many jobs cannot be searched in time; name a task, a state or a time.") from None
    document: dict[str, Any] = {"jobs": msgspec.to_builtins(found), "next": None}
    if len(found) == search.limit:
        parameters = [(name, value) for name, value in request.query_params.multi_items() if name != "before"]
        document["next"] = "/jobs?" + urlencode([*parameters, ("before", str(found[-1].id))])
    return Response(msgspec.json.encode(document), media_type="application/json")


def _search(request: Request) -> Search:
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if "\0" in value:
            raise Problem(422, f"The parameter {name!r} contains a NUL character.")
        if name in _REPEATED:
            given.setdefault(_REPEATED[name], []).append(value)
        elif name in given:
            raise Problem(422, f"The parameter {name!r} is given twice.")
        else:
            given[name] = value
    try:
        search = msgspec.convert(given, Search, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(422, f"The query is not understood: {error}.") from None
    for moment in (search.since, search.until):
        if moment is not None and moment.tzinfo is None:
            raise Problem(422, "A moment needs a time zone, such as 2026-01-31T12:00:00Z.")
    if not 1 <= search.limit <= _MOST:
        raise Problem(422, f"`limit` is a number from 1 to {_MOST}.")
    if not sees_all(request):
        search.subject = current(request).subject
    return search
