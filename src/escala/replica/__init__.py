"""The program of a Python replica: it loads the app or tasks that escala.toml names, and serves them."""
