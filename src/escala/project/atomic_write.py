"""Atomic replacement of files that other processes read."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: str, *, durable: bool = True) -> None:
    """Write `path` with mode 0600, so that a reader sees either the old or the new content, never a part of it.

    The new content survives a power failure. With `durable=False` it may not, but the write is milliseconds faster.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
