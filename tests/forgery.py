"""Files that are not what they say, and what reading one may cost."""

import json
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

from latente.codec.reader import Reader
from latente.codec.writer import Writer


@contextmanager
def memory(most):
    """Fails where the body holds so many MiB at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most << 20
    finally:
        tracemalloc.stop()


@contextmanager
def peak(most):
    """Fails where the process needs so many MiB more than before; says nothing where the system cannot tell."""

    def resident(name):
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)) >> 10

    status, reset, before = Path("/proc/self/status"), Path("/proc/self/clear_refs"), 0
    if reset.exists():
        reset.write_text("5")  # the peak begins anew
        before = resident("VmRSS")
    yield
    assert not reset.exists() or resident("VmHWM") - before < most


def forged(path, out, change, parts=None, payload=bytes):
    """The file with another header, other parts, or what `payload` makes of each chunk, and checks that fit."""
    with Reader(path) as reader:
        header = json.loads(json.dumps(reader.header))
        change(header)
        held = {name: reader.part(name) for name in reader.parts} | (parts or {})
        with Writer(out, header, held) as writer:
            for number in range(len(reader)):
                writer.add(payload(reader.chunk(number)), len(reader.items_of(number)))
    return out


def part_of(path, name):
    with Reader(path) as reader:
        return reader.part(name)
