"""Starts everything, as the reference system's star_services.py did: ``python star_services.py``."""

import os
import sys
from pathlib import Path

os.execv(
    sys.executable,
    [sys.executable, "-m", "escala", "up", "--file", str(Path(__file__).with_name("escala.toml")), *sys.argv[1:]],
)
