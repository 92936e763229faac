"""``python -m escala``: the command line."""

import sys

# `python -m` puts the working directory first on sys.path. That directory may be a project with a queue.py of its own,
# which would shadow the standard library's. Nothing of the project is imported here, so the entry is removed.
if not sys.flags.safe_path and sys.path:
    del sys.path[0]

from escala.cli import main

main()
