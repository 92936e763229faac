"""Communication with a supervisor: an HTTP server on a Unix socket, its client, and their messages."""
