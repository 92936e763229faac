"""The reference system: flights from New York City, behind Escala's gateway."""
