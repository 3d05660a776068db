"""A run: planned once, recorded once."""
