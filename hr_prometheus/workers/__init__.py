"""More than one process: a supervisor, its workers, and one truth about all of them."""
