"""The launcher: from a target to a process that serves it."""
