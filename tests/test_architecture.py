"""Imports run one way; `docs/architecture.md` draws it."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import escala

PACKAGE = Path(escala.__file__).parent

LIBRARY = ("auth", "cache", "connections", "database", "environment", "holder", "http", "replica", "services", "tasks")
RUNTIME = ("access_log", "cli", "control", "engines", "gateway", "processes", "supervisor")

FORBIDDEN = {
    **dict.fromkeys(LIBRARY, RUNTIME),
    "config": (*RUNTIME, *(part for part in LIBRARY if part != "http")),
    "gateway.topology": ("gateway.render", "gateway.haproxy", "supervisor", "control", "engines", "processes"),
    "gateway.render": ("gateway.haproxy", "supervisor", "control", "engines", "processes", "project"),
    "gateway.haproxy": ("supervisor", "control", "cli"),
    "control": ("supervisor", "cli", "engines", "gateway", "processes"),
    "processes": ("supervisor", "control", "cli", "gateway", "engines"),
    "engines": ("supervisor", "control", "cli", "gateway"),
    "supervisor": ("cli",),
    "access_log": ("supervisor", "control", "cli"),
}


def modules(part: str) -> Iterator[Path]:
    path = PACKAGE.joinpath(*part.split("."))
    yield from path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]


def imported(module: Path) -> Iterator[str]:
    """Yield what a module imports of Escala, within functions too."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("part", FORBIDDEN)
def test_no_arrow_runs_upward(part: str) -> None:
    found = [
        f"{module.relative_to(PACKAGE)} imports {name}"
        for module in modules(part)
        for name in imported(module)
        for forbidden in FORBIDDEN[part]
        if f"{name}.".startswith(f"escala.{forbidden}.")
    ]
    assert list(modules(part))
    assert not found


def loaded_by(*names: str) -> set[str]:
    code = f"import sys, {', '.join(names)}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_library_loads_nothing_of_the_runtime() -> None:
    loaded = loaded_by("escala", "escala.tasks.worker.http", "escala.services.platform")
    assert "escala.tasks" in loaded
    assert not loaded & {f"escala.{part}" for part in RUNTIME} | loaded & {"typer", "rich"}


def test_control_is_usable_without_the_supervisor() -> None:
    loaded = loaded_by("escala.control.client", "escala.control.server")
    assert not {
        name
        for name in loaded
        if name.startswith(("escala.supervisor", "escala.engines", "escala.gateway.haproxy", "escala.gateway.render"))
    }


def test_the_top_of_the_package_is_small() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 10
    crowded = {
        str(folder.relative_to(PACKAGE)): count
        for folder in PACKAGE.rglob("*")
        if folder.is_dir() and (count := len(list(folder.glob("*.py")))) > 16
    }
    assert set(crowded) <= {"config", "cli/commands"}, crowded  # these are lists: of sections, of commands


def test_every_command_is_a_file_of_its_name() -> None:
    cli = importlib.import_module("escala.cli")
    files = {path.stem for path in (PACKAGE / "cli" / "commands").glob("*.py")} - {"__init__"}
    assert files == set(cli.COMMANDS)
