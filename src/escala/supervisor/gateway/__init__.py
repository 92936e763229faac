"""What the supervisor runs in addition to HAProxy: listeners, certificates, revocations, the access log."""
