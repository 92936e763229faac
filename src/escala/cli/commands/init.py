"""The command `escala init`."""

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from escala.cli.support.console import out
from escala.config import FILE
from escala.errors import EscalaError

TEMPLATE = Path(__file__).parents[1] / "template"
_NAMES = {"gitignore": ".gitignore"}  # under its real name, git would apply it to this repository

Folder = Annotated[Path, typer.Argument(metavar="[DIR]", help="The folder to write to. Default: the working folder.")]


def init(folder: Folder = Path()) -> None:
    """Create a small project that runs at once: a FastAPI app, a task, a cache, a test. Replaces no existing file."""
    files = [path for path in sorted(TEMPLATE.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
    targets = {path: folder / _renamed(path.relative_to(TEMPLATE)) for path in files}
    there = [str(target) for target in targets.values() if target.exists()]
    if there:
        raise EscalaError(f"nothing was written, because these files already exist: {', '.join(there)}")
    try:
        for path, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        file = folder / FILE
        file.write_text(file.read_text(encoding="utf-8").replace("new-project", _name(folder)), encoding="utf-8")
    except OSError as error:
        raise EscalaError(f"{error.filename}: {error.strerror}") from None
    for target in targets.values():
        out.print(f"  {target}", markup=False)
    out.print("\nnow:")
    if folder != Path():
        out.print(f"  cd {folder}", markup=False)
    if importlib.util.find_spec("fastapi") is None:
        out.print("  pip install fastapi")
    out.print("  escala up          # or `escala dev`, which reloads on each change")
    out.print("  curl localhost:8000/hello")
    out.print('  curl -H "Authorization: Bearer $(escala token)" localhost:8000/squares/7', markup=False)


def _renamed(path: Path) -> Path:
    return path.with_name(_NAMES.get(path.name, path.name))


def _name(folder: Path) -> str:
    """Return a valid project name made from the folder's name."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", folder.absolute().name.lower()).strip("-_")[:40]
    return plain if plain[:1].isalpha() else "new-project"
