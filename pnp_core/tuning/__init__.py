"""Tuning without masks: the maps of one pass, a reward by CLIP, a search, and best.yaml (paper section 3.5)."""
