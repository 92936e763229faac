"""Texts with placeholders for the arguments of a call, such as the tags of a cache."""

import re
from collections.abc import Mapping
from datetime import date, datetime, time
from enum import Enum
from string import Formatter
from typing import Any

from escala.values.words import WORDS


class Template:
    """A text with placeholders for arguments: "from:{origin}", "order:{order.customer}". `what` names it in errors."""

    def __init__(self, text: str, what: str = "tag") -> None:
        """Parse a text. Raises ValueError if a placeholder is not an argument's name with attributes or items of it."""
        self.names: set[str] = set()
        self._parts: list[tuple[str, str | None]] = []
        for literal, field, form, conversion in Formatter().parse(text):
            if form or conversion:
                raise ValueError(f"the {what} {text!r} formats a value; a placeholder is only the name of an argument")
            if field is not None:
                root = re.split(r"[.\[]", field)[0]
                if not root.isidentifier():
                    raise ValueError(f"the {what} {text!r} has a placeholder without the name of an argument")
                self.names.add(root)
            self._parts.append((literal, field))

    def fill(self, arguments: Mapping[str, Any]) -> str:
        """Return the tag for a call. Raises TypeError for a value that has no text."""
        return "".join(
            literal + ("" if field is None else tag_text(Formatter().get_field(field, (), arguments)[0]))
            for literal, field in self._parts
        )


def tag_text(value: object) -> str:
    """Return a value as it stands in a tag: an Enum's value, a date in ISO 8601, a string as it is.

    Raises TypeError for a value without such a text.
    """
    if isinstance(value, Enum):
        return tag_text(value.value)
    if isinstance(value, str):
        text = str.__str__(value)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise TypeError(f"the tag {text!r} is not valid Unicode") from None
        return text
    if isinstance(value, datetime | time | date):
        return value.isoformat()
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    if value is None or isinstance(value, tuple(WORDS)):
        return str(value)
    raise TypeError(f"a tag cannot hold a {type(value).__qualname__}; name one of its attributes: {{argument.name}}")
