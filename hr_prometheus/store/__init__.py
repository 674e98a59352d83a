"""The numbers: where they are kept, and how they are read."""
