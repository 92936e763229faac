"""HAProxy rules that apply to some of the routes: one rule for each distinct value, not for each route."""

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from escala.gateway.render.text import problem, quoted
from escala.gateway.topology.routes import ResolvedRoute, sources_of

_MOST = 24
"""The maximum number of list items per line. HAProxy allows 64 words per line (MAX_LINE_ARGS), including all others."""

_LONG_LIST = re.compile(rf"\{{ (\S+ -m str --|method|src) ((?:[^\s{{}}\"]+ ){{{_MOST + 1},}})\}}")

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Group(Generic[Value]):
    """The routes that share one value of a setting."""

    value: Value
    condition: str
    """The condition under which the value applies; "" if it applies to all routes."""
    routes: Sequence[ResolvedRoute]

    def comment(self, key: str) -> str:
        """Return a comment that says where escala.toml sets this key for these routes."""
        return f"# {sources_of(self.routes, key)}"


def by_value(routes: Sequence[ResolvedRoute], value_of: Callable[[ResolvedRoute], Value]) -> Iterator[Group[Value]]:
    """Yield each distinct value with the routes that have it."""
    groups: dict[Value, list[ResolvedRoute]] = {}
    for route in routes:
        groups.setdefault(value_of(route), []).append(route)
    for value, members in groups.items():
        yield Group(value, "" if len(groups) == 1 else one_of(members), members)


def one_of(routes: Sequence[ResolvedRoute]) -> str:
    """Return the condition that a request's route is one of these."""
    return f"{{ var(txn.route) -m str -- {' '.join(sorted(route.name for route in routes))} }}"


def when(*conditions: str) -> str:
    """Return " if A B C" for the conditions that are not empty, or "" if all are."""
    given = [condition for condition in conditions if condition]
    return f" if {' '.join(given)}" if given else ""


def folded(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a section; a list that is too long for one line becomes a named ACL of several lines."""
    names: dict[str, str] = {}
    declared: list[str] = []

    def named(found: re.Match[str]) -> str:
        if found[0] not in names:
            name = names[found[0]] = f"list{len(names) + 1}"
            words = found[2].split()
            declared.extend(
                f"acl {name} {found[1]} {' '.join(words[first : first + _MOST])}"
                for first in range(0, len(words), _MOST)
            )
        return names[found[0]]

    rest = [_LONG_LIST.sub(named, line) for line in lines]
    yield from declared
    yield from rest


def refuse(status: int, detail: str, *headers: tuple[str, str]) -> str:
    """Return the action that refuses a request with a problem document, without its condition."""
    added = "".join(f" hdr {name} {quoted(value)}" for name, value in headers)
    return f"http-request deny {problem(status, detail)}{added}"
