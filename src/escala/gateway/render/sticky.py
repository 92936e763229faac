"""What keeps a client at its replica, out of `balance.sticky`: a cookie, or a header that names a session."""

from escala.config import Balance


def sticky_cookie(balance: Balance) -> str | None:
    return None if balance.sticky is None or ":" in balance.sticky else balance.sticky


def sticky_header(balance: Balance) -> str | None:
    return (balance.sticky or "").partition(":")[2] or None
