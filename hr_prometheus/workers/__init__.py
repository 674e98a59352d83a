"""Several processes that serve one application, and the one place where their numbers come together."""
