"""Errors: facts, a message that is the docstring, and a code."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from escala import errors
from escala.errors import ConfigError, EscalaError, KeyDamaged, PoolExhausted, PortTaken, ServiceBusy

MADE = [
    ServiceBusy("web", "a rollout"),
    PoolExhausted("TimeoutError", 10, 5.0),
    PortTaken("127.0.0.1:80", "web/1", None),
    ConfigError("escala.toml", ["a: b", "c: {d}"]),
    KeyDamaged(Path("/k/signing.json"), "is missing"),
    EscalaError("plain {text}"),
]


def test_the_message_has_the_facts() -> None:
    assert str(ServiceBusy("web", "a rollout")).startswith("web is busy: a rollout is under way")
    assert str(ConfigError("f", ["a: {b}", "c"])) == "f: 2 problems\n  a: {b}\n  c"
    assert str(EscalaError("plain {text}")) == "plain {text}"


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_can_be_copied_and_pickled(error: EscalaError) -> None:
    for made in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(made) is type(error)
        assert str(made) == str(error)


def test_every_class_has_a_code_of_its_own() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, EscalaError)]
    codes = {each.code.fget(each.__new__(each)) for each in classes}  # type: ignore[attr-defined]
    assert len(codes) == len(classes)
    assert "service_busy" in codes


def test_a_message_is_readable_where_python_drops_docstrings() -> None:
    code = "from escala.errors import ServiceBusy; print(ServiceBusy('web', 'a rollout'))"
    said = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "service_busy: service='web', by='a rollout'"
