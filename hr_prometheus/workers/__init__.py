"""Several processes that serve one application, and their supervisor, which adds up their numbers."""
