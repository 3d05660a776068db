"""Proposals x classifier: masks from elsewhere, each named by a CLIP (OVSeg, arXiv 2210.04150; OpenDAS)."""
