"""What users import is a promise."""

import escala
from escala.environment import Environment


def test_the_public_names() -> None:
    assert sorted(escala.__all__) == [
        "Cache",
        "EscalaError",
        "Problem",
        "__version__",
        "auth",
        "database",
        "from_thread",
        "lifespan",
        "problem",
        "running",
        "task",
    ]


def test_the_environment_survives_its_variables() -> None:
    environment = Environment(project="p", service="s", replica="s/1", postgres="postgresql://x", data="/d")
    assert Environment.read(environment.variables()) == environment
