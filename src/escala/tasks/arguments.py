"""Arguments and results as JSON text, by the declared types. Nothing is altered: what would be is refused."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

import msgspec

from escala.errors import TaskArguments
from escala.tasks.context import JobContext
from escala.values.comparison import difference, equal
from escala.values.models import is_model
from escala.values.types import require_declared

JOB_PARAMETER = "job"
"""The parameter that gets the JobContext, unless it is annotated with another type."""


def _dump(value: Any) -> Any:
    if is_model(type(value)):
        return value.__pydantic_serializer__.to_python(value, mode="json", round_trip=True, by_alias=False)
    raise TypeError(f"a {type(value).__qualname__} has no place in JSON")


def _load(kind: Any, value: Any) -> Any:
    if is_model(kind):
        return kind.__pydantic_validator__.validate_python(value, by_alias=False, by_name=True)
    raise TypeError(f"a {kind.__qualname__} cannot be made of JSON")


_encoder = msgspec.json.Encoder(enc_hook=_dump)


class Arguments:
    """The arguments of one function. Raises TypeError if one of them cannot be passed by name."""

    def __init__(self, function: Callable[..., Any], task: str) -> None:
        self._function = function
        self._task = task
        self._signature = self._whole = inspect.signature(function)
        for parameter in self._signature.parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"task {task!r}: argument {parameter} cannot be passed by name")
        self.wants_job = _is_context(self._signature.parameters.get(JOB_PARAMETER))
        if self.wants_job:
            others = [p for p in self._signature.parameters.values() if p.name != JOB_PARAMETER]
            self._signature = self._signature.replace(parameters=others)
        self._defaults = {p.name: p.default for p in self._signature.parameters.values()}
        """The arguments in their order, with their defaults, if they have one."""
        self._required = frozenset(self.required)
        self._decoder: msgspec.json.Decoder[Any] | None = None

    def prepare(self) -> None:
        """Resolve the annotations. Raises TypeError if one is unknown, or names a type that JSON cannot hold."""
        if self._decoder is not None:
            return
        hints = _hints(self._function, self._task)
        fields: list[Any] = []
        for name, parameter in self._signature.parameters.items():
            hint = hints.get(name, Any)
            try:
                msgspec.json.Decoder(hint, dec_hook=_load)
                require_declared(msgspec.inspect.type_info(hint))
            except (TypeError, ValueError) as error:
                raise TypeError(f"task {self._task!r}: argument {name}: {error}") from None
            required = parameter.default is parameter.empty
            fields.append((name, hint) if required else (name, hint | msgspec.UnsetType, msgspec.UNSET))
        kind = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True, gc=False)
        self._names = tuple(self._signature.parameters)
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind, dec_hook=_load)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._signature.parameters)

    @property
    def required(self) -> list[str]:
        """The names of arguments without a default."""
        return [p.name for p in self._signature.parameters.values() if p.default is p.empty]

    def encoded(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the arguments of a call as a JSON object and by name, defaults too.

        Raises TaskArguments if they do not fit.
        """
        arguments = self._bind(args, kwargs)
        self.prepare()
        try:
            text = _encoder.encode(arguments)
            kept = self._decode(text)
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, UnicodeError):
            raise TaskArguments(self._task, self._fault(arguments)) from None
        is_doubtful = b"\\u0000" in text or not all(equal(value, kept[name]) for name, value in arguments.items())
        if is_doubtful and (fault := self._fault(arguments)) is not None:
            raise TaskArguments(self._task, fault)
        return text.decode(), arguments

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, defaults too; raise TaskArguments if they do not fit."""
        if not args and self._required <= kwargs.keys() <= self._defaults.keys():  # faster than `Signature.bind`
            return {**self._defaults, **kwargs}
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TaskArguments(self._task, str(error)) from None
        bound.apply_defaults()
        return bound.arguments

    def with_job(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], job: JobContext) -> dict[str, Any]:
        """Return the arguments of a call by name, with the job's context. Raises TypeError if they do not fit."""
        if JOB_PARAMETER in kwargs:  # the caller has one
            return dict(self._whole.bind(*args, **kwargs).arguments)
        return {JOB_PARAMETER: job, **self._signature.bind(*args, **kwargs).arguments}

    def decode(self, text: str) -> dict[str, Any]:
        """Return the arguments of a job by name; raise TaskArguments if they do not fit the function."""
        self.prepare()
        try:
            return self._decode(text)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise TaskArguments(self._task, _readable(error)) from None

    def _decode(self, text: bytes | str) -> dict[str, Any]:
        assert self._decoder is not None
        made = self._decoder.decode(text)
        return {name: value for name in self._names if (value := getattr(made, name)) is not msgspec.UNSET}

    def _fault(self, arguments: Mapping[str, Any]) -> Any:
        """Return which argument cannot be kept, and why; None if none is at fault."""
        hints = _hints(self._function, self._task)
        for name, value in arguments.items():
            if (reason := _reason(value, hints.get(name, Any))) is not None:
                return f"{name}: {reason}"
        return None


def _reason(value: Any, hint: Any) -> str | None:
    """Return why a value cannot be kept as JSON and be the same value again; None if it can."""
    try:
        text = _encoder.encode(value)
    except UnicodeError:
        return "the text is not valid Unicode"
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        return str(error)
    if place := next(_not_finite(value), None):
        return f"{place}, and JSON has no such number"
    if _holds_nul(value):
        return "the text has a NUL character, which PostgreSQL cannot hold"
    try:
        kept = msgspec.json.decode(text, type=hint, dec_hook=_load)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        return _readable(error)
    if equal(value, kept):
        return None
    found = difference(value, kept) or "it would be another value"
    return f"{found}; declare its exact type in the function's annotation"


def _readable(error: Exception) -> str:
    """Return a validation error with the argument's name in front: "month: Expected `int`, got `str`"."""
    message, found, path = str(error).rpartition(" - at `$")
    if not found or path == "`":
        return str(error)
    return f"{path.rstrip('`').lstrip('.')}: {message}"


def _hints(function: Callable[..., Any], task: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except Exception as error:
        raise TypeError(
            f"task {task!r}: an annotation cannot be resolved ({error}); import what it names at run time, too"
        ) from None


def _is_context(parameter: inspect.Parameter | None) -> bool:
    if parameter is None:
        return False
    annotation = parameter.annotation
    if isinstance(annotation, str):
        return annotation.rpartition(".")[2] == JobContext.__name__
    return annotation in (parameter.empty, JobContext)


def encode_result(value: Any) -> str:
    """Return a handler's result as JSON. Raises ValueError, which says what cannot be kept."""
    try:
        text = _encoder.encode(value)
    except UnicodeError:
        raise ValueError("a text is not valid Unicode") from None
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if b"null" in text and (place := next(_not_finite(value), None)):
        raise ValueError(f"{place}, and JSON has no such number")
    return text.decode()


def decode_result(text: str, kind: Any) -> Any:
    """Return a result of its JSON, by its declared type. Raises ValueError if it does not fit."""
    try:
        return msgspec.json.decode(text, type=kind, dec_hook=_load)
    except (msgspec.MsgspecError, TypeError) as error:
        raise ValueError(_readable(error)) from None


def _not_finite(value: Any, place: str = "value") -> Iterator[str]:
    """Yield the places of numbers that JSON cannot hold."""
    if isinstance(value, float):
        if not math.isfinite(value):
            yield f"{place} is {value!r}"
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _not_finite(item, f"{place}[{name!r}]")
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{place}[{index}]")
    elif hasattr(value, "__struct_fields__") or hasattr(value, "__dataclass_fields__"):
        for name in getattr(value, "__struct_fields__", None) or value.__dataclass_fields__:
            yield from _not_finite(getattr(value, name, None), f"{place}.{name}")


def _holds_nul(value: Any) -> bool:
    plain = msgspec.to_builtins(value, enc_hook=_dump)
    waiting = [plain]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str) and "\0" in each:
            return True
        if isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            waiting += each
    return False
