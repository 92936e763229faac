"""What Escala says in HTTP: problem documents, header names, methods, statuses, host names."""
