"""Putting values into HAProxy's configuration so that none can break out of its place.

Texts from escala.toml are limited to harmless characters by their types already (`config.section`); quoting is the
second fence, and the only one for paths of files.
"""

import json
import re

from escala.config import Endpoint, UnixSocket
from escala.http.statuses import title


def quoted(text: str) -> str:
    """Return `text` as one word of the configuration (HAProxy configuration manual, section 2.2)."""
    if any(ord(character) < 32 for character in text):
        raise ValueError(f"{text!r} has a control character")
    inner = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{inner}"'


def escaped(text: str) -> str:
    """Return `text` as one word of a command (HAProxy management guide, section 9.3)."""
    if any(ord(character) < 32 for character in text):
        raise ValueError(f"{text!r} has a control character")
    return re.sub(r"([\\ ;])", r"\\\1", text)


def located(endpoint: Endpoint) -> str:
    """Return where a replica listens as HAProxy names it, not yet quoted."""
    return f"unix@{endpoint.path}" if isinstance(endpoint, UnixSocket) else str(endpoint)


def log_format(text: str) -> str:
    """Return `text` so that it stands for itself in a log-format string."""
    return text.replace("%", "%%")


def regex(text: str) -> str:
    """Return `text` as a regular expression that matches only it."""
    return re.escape(text)


def milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def problem(status: int, detail: str, request_id: str = "%ID", *, named: bool = True) -> str:
    """Return the arguments that make HAProxy answer a problem document (RFC 9457), its request id included.

    Not `named`, it does not repeat the status, for one that a rule may still change.
    """
    document = {"type": "about:blank", "title": title(status), "status": status, "detail": detail, "request_id": "@"}
    if not named:
        del document["title"], document["status"]
    body = log_format(json.dumps(document)).replace('"@"', f'"{request_id}"')
    return f"status {status} content-type application/problem+json lf-string {quoted(body)}"
