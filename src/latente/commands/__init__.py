"""The commands: each is a dataclass of its flags and a function `(words, started) -> exit code`, side by side.

Nothing heavy is imported before it is needed: help reads no torch, but for that of `train MODEL`, whose flags stand in the model's
file. `started` is `time.monotonic()` at the start.
"""
