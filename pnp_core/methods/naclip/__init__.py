"""NACLIP: patches of a CLIP that attend to their neighbours, held against texts (Hajimiri et al., arXiv 2404.08181)."""
