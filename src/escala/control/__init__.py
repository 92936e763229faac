"""How one talks to a supervisor: a Unix socket that speaks HTTP, its client, and their messages."""
