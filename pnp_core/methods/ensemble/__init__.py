"""The ensemble: the scores of finished runs, added up."""
