"""A data set in fewer bytes: what a model expects is left out, what surprises it is coded.

    images or files + run -> chunks, each by itself -> a .latente file: header, weights, names, labels, chunks
    the file (+ the run, where the weights are not in it) -> the same images, the same bytes, the same rows

Images and rows go through exact models (`codec.exact`), so their files are read on any machine. Text goes through a language model
in floating point, so its files carry a fingerprint of the machine's arithmetic and are refused where it differs.
"""

from latente.compression.files import Archive, Packed, compress, decompress

__all__ = ["Archive", "Packed", "compress", "decompress"]
