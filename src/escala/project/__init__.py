"""An open project: its file, its state folder, its lock, and atomic writes."""
