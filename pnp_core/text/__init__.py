"""Text of unknown origin, in and out."""
