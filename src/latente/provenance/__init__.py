"""Where what was made came from, and whether it can be made again.

    Run.sample -> write ----------------------------.
    source -> apply (encode, reconstruct, ...) -----+
    rows with gaps -> write_filled -----------------+
    sources -> PairRun.hypotheses -> write_targets -+-> made/ and made.latente.json: run, weights, what was done and asked, hashes, scores
    made/ + made.latente.json + run (+ source) -> verify -> is it the run? -> make it again -> same bytes | same values | what differs

A sidecar may come from a stranger: it is read as plain values of known types, nothing in it is run, and what it asks for is
bounded by what lies beside it. It names no place on anybody's disk: a source is opened only when the user names it again.

    sidecars.py   what stands in a sidecar     writing.py   both are written, or neither     verifying.py   making again
    kind.py       what has to be known of a kind of things made; images.py, texts.py, rows.py, vectors.py, targets.py know it
"""

from latente.provenance.sidecars import OPTIONS, SUFFIX, content_sha256, read, sidecar, weights_sha256
from latente.provenance.verifying import Verdict, verify
from latente.provenance.writing import (
    apply,
    check_free,
    check_options,
    check_output,
    write,
    write_filled,
    write_targets,
)

__all__ = [
    "OPTIONS", "SUFFIX", "Verdict", "apply", "check_free", "check_options", "check_output", "content_sha256", "read", "sidecar",
    "verify", "weights_sha256", "write", "write_filled", "write_targets",
]  # fmt: skip
