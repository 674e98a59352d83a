"""What the module beside it imports."""

NAME = "package"
