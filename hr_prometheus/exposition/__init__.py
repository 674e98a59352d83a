"""A scrape, from a registry to bytes."""
