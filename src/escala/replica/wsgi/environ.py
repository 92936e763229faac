"""The WSGI environ of a request."""

from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.types import Scope


def environ_of(scope: Scope) -> dict[str, Any]:
    """Return the environ of a request (PEP 3333, "environ Variables"). Strings hold bytes decoded as Latin-1.

    Headers with an underscore in their name are left out. In the environ they could not be told from headers with a
    dash, which the gateway has checked.
    """
    prefix = str(scope.get("root_path", ""))
    raw = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"].decode("latin-1")
    target = raw.decode("latin-1") + (f"?{query}" if query else "")
    server = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": prefix.encode().decode("latin-1"),
        "PATH_INFO": unquote_to_bytes(raw).removeprefix(prefix.encode()).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": target,
        "RAW_URI": target,
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 80),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "wsgi.input_terminated": True,  # reading stops at the body's end, even if it is chunked (Werkzeug)
    }
    if scope.get("client"):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = scope["client"][0], str(scope["client"][1])
    for name, value in scope["headers"]:
        if b"_" in name:
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        joint = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{joint}{text}" if key in environ else text
    return environ
