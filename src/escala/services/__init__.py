"""Services that are part of Escala."""
