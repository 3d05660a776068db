"""Which classes go into the caption (ALGORITHM section 5)."""
