"""Checks before and after the work: a dataset's files, a model, a file of candidates, an output folder."""
