"""Quoting of values for HAProxy's configuration, so that no value can inject other configuration.

The types of values in escala.toml already allow only harmless characters (`config.section`). Quoting is the second line
of defense. For file paths it is the only one.
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
    """Return a replica's endpoint in HAProxy's notation, not yet quoted."""
    return f"unix@{endpoint.path}" if isinstance(endpoint, UnixSocket) else str(endpoint)


def log_format(text: str) -> str:
    """Return `text` escaped for a log-format string."""
    return text.replace("%", "%%")


def regex(text: str) -> str:
    """Return a regular expression that matches exactly `text`."""
    return re.escape(text)


def milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def problem(status: int, detail: str, request_id: str = "%ID", *, named: bool = True) -> str:
    """Return the arguments that make HAProxy answer with a problem document (RFC 9457) that has the request id.

    With `named=False`, the document omits status and title. Use this if a rule may still change the status.
    """
    document = {"type": "about:blank", "title": title(status), "status": status, "detail": detail, "request_id": "@"}
    if not named:
        del document["title"], document["status"]
    body = log_format(json.dumps(document)).replace('"@"', f'"{request_id}"')
    return f"status {status} content-type application/problem+json lf-string {quoted(body)}"
