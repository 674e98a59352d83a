"""The life of one request, from the middleware to the last byte of its response."""
