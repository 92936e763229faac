"""A worker: it claims jobs, runs them, renews their leases and answers over HTTP."""
