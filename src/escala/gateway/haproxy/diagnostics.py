"""Maps HAProxy's messages about its configuration to the setting in escala.toml that caused them."""

import re

from escala.gateway.topology.backend_names import service_of

_PLACE = re.compile(r"\[.*?\.cfg:(\d+)\]")
_IN_FRONTEND = {"bind": "gateway.bind"}
_IN_GLOBAL = {"maxconn": "gateway.max_connections", "nbthread": "gateway.threads"}
_IN_BACKEND = {
    "balance": "balance",
    "hash-type": "balance",
    "cookie": "balance.sticky",
    "http-check": "health",
    "compression": "compression",
    "server": "balance",
}


def setting(words: str, text: str) -> str | None:
    """Return the escala.toml key behind the line that a message refers to; None if there is no such key or line.

    `words` is HAProxy's message, and `text` is the configuration.
    """
    place = _PLACE.search(words)
    lines = text.splitlines()
    if place is None or not 1 <= int(place[1]) <= len(lines):
        return None
    number = int(place[1]) - 1
    head = next((line for line in reversed(lines[: number + 1]) if line and not line.startswith(" ")), "")
    kind, _, name = head.partition(" ")
    line = lines[number].strip()
    keyword = line.partition(" ")[0]
    if kind == "global":
        return _IN_GLOBAL.get(keyword)
    if kind == "frontend":
        return "gateway.tls.certificates" if " crt " in line else _IN_FRONTEND.get(keyword)
    if kind == "backend" and not name.startswith("escala."):
        return ".".join(filter(None, ["services", service_of(name), _IN_BACKEND.get(keyword)]))
    return None


def explained(words: str, text: str) -> str:
    """Return HAProxy's message, prefixed with the setting that caused it if that is known."""
    found = setting(words, text)
    return f"{found}: {words}" if found else words
