"""Thin Prefect tasks, one module per stage; all logic is in `pnp_core`."""
