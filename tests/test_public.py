"""What users import is a promise."""

import subprocess
import sys

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
        "lifespan",
        "problem",
        "running",
        "task",
    ]


def test_the_library_never_imports_supervisor_gateway_or_command_line() -> None:
    code = "import sys, escala, escala.tasks.app, escala.services.platform; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    for package in ("escala.supervisor", "escala.gateway", "escala.cli", "escala.engines", "typer", "rich"):
        assert package not in loaded


def test_the_environment_survives_its_variables() -> None:
    environment = Environment(project="p", service="s", replica="s/1", postgres="postgresql://x", data="/d")
    assert Environment.read(environment.variables()) == environment
