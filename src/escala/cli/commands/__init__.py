"""The commands of the command line, a module each; the module has a function or an application of its name."""
