"""A module whose name is none."""
