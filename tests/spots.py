"""Where things lie in a .latente file, for tests that damage it."""

from latente.codec.reader import Reader


def spots(path):
    """The bytes of header, parts, chunks and index, each a range."""
    content, found, end = path.read_bytes(), {}, 0
    with Reader(path) as reader:
        for name in (*reader.parts, *(f"chunk {number}" for number in range(len(reader)))):
            piece = reader.part(name) if name in reader.parts else reader.chunk(int(name[6:]))
            start = content.index(piece, end)
            if not end:
                found["header"], end = range(start), start
            found[name], end = range(end, start + len(piece)), start + len(piece)
    return found | {"index": range(end, len(content))}


def damaged(path, name, out):
    """A copy of a file with a bit changed in the last half of one of its things."""
    content, spot = bytearray(path.read_bytes()), spots(path)[name]
    content[spot[3 * len(spot) // 4]] ^= 4
    out.write_bytes(content)
    return out
