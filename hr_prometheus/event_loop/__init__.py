"""The event loop's own metrics: how late it is, what it uses, and who blocks it."""
