"""Services that Escala brings along."""
