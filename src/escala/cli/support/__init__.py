"""What several commands share: the console, options, tables, following work to its end."""
