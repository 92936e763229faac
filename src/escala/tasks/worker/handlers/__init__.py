"""Where handlers run: on an event loop, in threads, or each in a process of its own."""
