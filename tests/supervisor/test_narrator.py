from dataclasses import fields

import pytest

from escala import events
from escala.supervisor.narrator import Narrator

KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)]
SAMPLES = {
    "str": "text",
    "int": 7,
    "float": 1.5,
    "bool": True,
    "tuple[str, ...]": ("a", "b"),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not events.Event])
def test_every_event_has_words(kind: type[events.Event]) -> None:
    values = {
        f.name: SAMPLES.get(getattr(f.type, "__name__", "")) or SAMPLES.get(str(f.type), "x") for f in fields(kind)
    }
    said: list[str] = []
    Narrator(said.append, said.append).tell(kind(**values))
    assert said
    assert "\n" not in "".join(said)


def test_why_a_process_could_not_start() -> None:
    said: list[str] = []
    tail = tuple(f"line {n}" for n in range(20))
    Narrator(said.append, said.append).tell(
        events.ProcessEnded("web/1", "exit code 1", tail, was_ready=False, next_try=0.1)
    )
    assert said[0] == "web/1 could not start: exit code 1; next start in 100 ms"
    assert said[-1] == "    output of web/1: line 19"
    assert len(said) == 9
