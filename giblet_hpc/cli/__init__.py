"""The command line: one module a command group, loaded when asked for. Parse, call, print."""
