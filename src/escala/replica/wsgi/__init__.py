"""WSGI apps (PEP 3333) in a replica: `server` is the way in."""
