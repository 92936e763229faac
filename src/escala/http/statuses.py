"""The names of HTTP statuses in RFC 9110; before version 3.13, Python has old names for two of them."""

from http import HTTPStatus

_RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}


def title(status: int) -> str:
    return _RENAMED.get(status) or HTTPStatus(status).phrase
