"""CaR: two CLIPs that drop classes from a list until it stays the same (CLIP as RNN, Sun et al., arXiv 2312.07661)."""
