"""Methods: one room each."""
