"""CLIP through open_clip, shared by candidates, reward and methods."""
