"""One operating-system process, kept alive, and what it needs: ports, logs, a registry."""
