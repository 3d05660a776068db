"""Thin tasks, one module per stage, and who runs them; all logic is in `pnp_core`."""
