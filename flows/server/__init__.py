"""Prefect servers: one for one command, one that stays, and runs of deployments on any."""
