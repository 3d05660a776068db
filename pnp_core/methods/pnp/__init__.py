"""PnP-OVSS: cross-attention times gradient, and Salience DropOut (arXiv 2311.17095)."""
