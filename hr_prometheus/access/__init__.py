"""Who may come to the metrics port, and how: certificates, tokens, users, limits."""
