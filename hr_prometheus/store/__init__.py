"""The numbers: in which cells a store keeps them, and the families by which they are read."""
