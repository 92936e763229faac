"""The access log: HAProxy streams a line a request to the collector, which keeps them as newline-delimited JSON."""
