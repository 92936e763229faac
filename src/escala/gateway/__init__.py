"""The gateway: what the configuration means, as HAProxy is told, and as it runs."""
