"""Names of HTTP statuses as RFC 9110 has them; Python learned two of them only in 3.13."""

from http import HTTPStatus

_RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}


def title(status: int) -> str:
    return _RENAMED.get(status) or HTTPStatus(status).phrase
