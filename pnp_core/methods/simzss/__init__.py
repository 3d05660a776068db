"""SimZSS: patches of a frozen DINOv2 held against a text tower that was trained for them (Stegmuller et al.,
arXiv 2406.16085).
"""
