"""What the cache and the tasks share: names of functions, pydantic models, and whether a value came back unchanged."""
