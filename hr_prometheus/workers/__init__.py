"""Several processes that serve one application: their supervisor, and the one truth of their numbers."""
