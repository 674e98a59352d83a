"""Which labels a request is recorded under."""
