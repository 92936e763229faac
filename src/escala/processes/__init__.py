"""Operating-system processes: running them, keeping them alive, and what they need (ports, logs, a registry)."""
