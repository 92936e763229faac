"""The running HAProxy: its configuration on disk, its replicas, its Runtime API, its certificates."""
