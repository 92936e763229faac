"""A project opened: its file, its state folder, its lock, atomic writes."""
