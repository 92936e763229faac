"""``python -m escala``: the command line."""

import sys

# The working directory, which -m puts first, may be a project's, whose queue.py must not stand in for the standard
# library's. Nothing of the project is imported here.
if not sys.flags.safe_path and sys.path:
    del sys.path[0]

from escala.cli import main

main()
