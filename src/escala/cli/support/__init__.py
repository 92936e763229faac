"""Code that several commands share: the console, options, tables, and following an operation to its end."""
