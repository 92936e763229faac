"""The commands of the command line, one module each. A module has a function or a Typer application of its name."""
