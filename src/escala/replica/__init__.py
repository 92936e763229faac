"""The program of a Python replica: loading what escala.toml names, and serving it."""
