"""What the supervisor runs beside HAProxy: listeners, certificates, revocations, the access log."""
