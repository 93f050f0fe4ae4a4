"""The commands: each is a dataclass of its flags and a function `(words, started) -> exit code`, side by side.

Nothing heavy is imported before it is needed: the help of a command reads no torch. `started` is `time.monotonic()` at the start.
"""
