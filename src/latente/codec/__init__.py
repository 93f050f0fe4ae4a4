"""Entropy coding and the file it goes into: what `latente compress` writes and `latente decompress` reads."""
