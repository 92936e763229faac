"""The access log: HAProxy sends one line per request to the collector, which stores it as newline-delimited JSON."""
