"""The labels of a request: written, bounded, and cached with the records that are kept by them."""
