"""The shortest way to a value in L1: a function with the parameters of the cached one, made for it.

Packing and binding arguments would cost more than everything else on the way. So, as `dataclasses` does, the text of
a function is put together and compiled. It finds the entry by its arguments as they are, without an encoding.
"""

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any

from escala.cache.l1 import MAX_HITS
from escala.cache.loads import Lookup
from escala.cache.system import slot

_TEXT = """
{prefix}def call({parameters}):
    try:
        _entry = _slot.value.calls[{shape}]
        _now = _monotonic()
        _usable = _entry.refresh_at > _now and _entry.fresh_until > _now and _entry.home.trusted_until > _now
    except _Exception:  # not there, no cache, or an argument that cannot be a key of a dict
        _usable = False
    if not _usable:
        return {wait}_miss({{{arguments}}})
    _entry.counts.l1 += 1
    if _entry.hits < {most}:
        _entry.hits += 1
    _payload = _entry.payload
    return {result}
"""
_VALUE = "_entry.value if _payload is None else _entry.decode(_payload)"
_LOOKUP = f"_Lookup({_VALUE}, 'l1')"


def with_shortcut(
    signature: inspect.Signature, mark: object, miss: Callable[..., Any], *, is_async: bool, lookup: bool = False
) -> Any:
    """Return a function with the parameters of `signature` that answers from L1, or else by `miss(arguments)`.

    It returns the value, or a `Lookup` if `lookup` is set, as `miss` does.
    Entries are found in `L1.calls` under what `shape` returns for the same `mark`. A function for which `has_shortcut`
    is false always goes the long way.
    """
    parameters = list(signature.parameters.values())
    if not has_shortcut(signature):
        return _long_way(signature, miss, is_async=is_async)
    names = [parameter.name for parameter in parameters]
    plain = [
        parameter.replace(annotation=parameter.empty, default=parameter.empty)
        if parameter.default is parameter.empty
        else parameter.replace(annotation=parameter.empty, default=_Name(f"_defaults[{parameter.name!r}]"))
        for parameter in parameters
    ]
    text = _TEXT.format(
        prefix="async " if is_async else "",
        wait="await " if is_async else "",
        parameters=str(inspect.Signature(plain))[1:-1],
        shape="".join(f"{name}, " for name in ("_mark", *names, *(f"_type({name})" for name in names))),
        arguments="".join(f"{name!r}: {name}, " for name in names),
        most=MAX_HITS,
        result=_LOOKUP if lookup else _VALUE,
    )
    scope = {
        "_slot": slot,
        "_monotonic": time.monotonic,
        "_type": type,
        "_Exception": Exception,
        "_Lookup": Lookup,
        "_mark": mark,
        "_miss": miss,
        "_defaults": {parameter.name: parameter.default for parameter in parameters},
    }
    exec(compile(text, f"<cached {mark!r}>", "exec"), scope)  # noqa: S102 - of names that Python has parsed
    return scope["call"]


def has_shortcut(signature: inspect.Signature) -> bool:
    """Whether all parameters have names of their own, which are not among those of the function that is made."""
    return all(
        parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and not parameter.name.startswith("_")
        for parameter in signature.parameters.values()
    )


def shape(mark: object, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a call is found by: the arguments in the order of the parameters, and their types."""
    return (mark, *arguments.values(), *map(type, arguments.values()))


def bind(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a call, in the order of the parameters. Raises TypeError as the call would."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


class _Name:
    """A default value in the text of a signature: the place where the value is found."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _long_way(signature: inspect.Signature, miss: Callable[..., Any], *, is_async: bool) -> Any:
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        return await miss(bind(signature, args, kwargs))

    def call(*args: Any, **kwargs: Any) -> Any:
        return miss(bind(signature, args, kwargs))

    return call_async if is_async else call
