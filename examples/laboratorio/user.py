"""Prints a valid token, as the reference system's user.py did: ``python user.py``."""

import os
import sys
from pathlib import Path

os.execv(
    sys.executable,
    [sys.executable, "-m", "escala", "token", "--file", str(Path(__file__).with_name("escala.toml")), *sys.argv[1:]],
)
