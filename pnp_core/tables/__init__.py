"""Benchmark tables, made from the records and scores that runs have left and from nothing else."""
