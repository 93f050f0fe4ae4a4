# ---- copies --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Points:
    """Rows by what they are compared by, float32 (N,P)."""

    array: np.ndarray

    def __len__(self) -> int:
        return len(self.array)

    def points(self, part: slice) -> np.ndarray:
        return self.array[part]

    def some(self, at: np.ndarray) -> Points:
        return Points(self.array[at])


def compared(parts: Sequence[Rows], real: Rows) -> list[np.ndarray]:
    """What rows are compared by, float32 (N,P) each: numbers as shares of `real` ones that are smaller, so from 0 to 1; levels by
    directions at right angles (or nearly so, where there are many), the square of whose distance is 1; a missing cell is a level."""
    columns: list[list[np.ndarray]] = [[] for _ in parts]
    for c, discrete in enumerate(real.categorical):
        there = np.sort(real.values[:, c][~np.isnan(real.values[:, c])])
        for found, part in zip(columns, parts):
            values = part.values[:, c]
            missing = np.isnan(values)
            if discrete:
                found.append(
                    _directions(np.where(missing, 0, values + 1).astype(np.int64), max(len(real.levels[c]), 1) + 2)
                )
                continue
            share = (np.searchsorted(there, values, "left") + np.searchsorted(there, values, "right")) / (
                2 * max(1, len(there))
            )
            found.append(np.where(missing, 0.5, share)[:, None])
            found.append(missing[:, None] * 1.0)
    return [np.concatenate(found, 1).astype(np.float32) for found in columns]


def _directions(codes: np.ndarray, count: int) -> np.ndarray:
    if count <= DIRECTIONS:
        return np.eye(count)[np.minimum(codes, count - 1)] / np.sqrt(2)
    signs = np.random.default_rng(key("directions", count)).choice([-1.0, 1.0], (count, DIRECTIONS))
    return signs[np.minimum(codes, count - 1)] / np.sqrt(2 * DIRECTIONS)


def _copied(samples: Rows, held: Held, seed: int) -> tuple[list[Score], Gallery]:
    random = np.random.default_rng(key(seed, "pool"))
    train = (
        held.train.some(np.sort(random.permutation(len(held.train))[:POOL])) if len(held.train) > POOL else held.train
    )
    made, known, other = compared((samples, train, held.test), train)
    marks = _marks(train)
    counts: dict[bytes, int] = {}
    for mark in marks:
        counts[mark] = counts.get(mark, 0) + 1
    exact = np.array([mark in counts for mark in _marks(samples)])
    among = sum(count for count in counts.values() if count > 1)
    if not len(held.test):
        raise ValueError("there are no held-out rows to compare with: train with --test above 0")
    scores, found = copying.tested(made, Points(known), Points(other), exact, among, seed, "rows")
    order = found.suspicious
    rows = [
        ("sample", [_line(samples, i, train, int(found.which[i])) for i in order]),
        ("nearest training row", [_line(train, int(found.which[i]), samples, i) for i in order]),
    ]
    captions = ["equal" if found.exact[i] else f"{found.to_train[i]:.3f} / {found.to_test[i]:.3f}" for i in order]
    note = (
        "The samples that lie much nearer to a training row than to any held out; cells that differ stand in [brackets]. Under each: its \
distance from the one / from the nearest held-out row."
    )
    return scores, Gallery("Most like a copy", note, rows, paired=True, captions=captions)


def _marks(rows: Rows) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(np.nan_to_num(rows.values, nan=-1e300))]


def _line(rows: Rows, at: int, other: Rows | None = None, beside: int = 0) -> str:
    """A row, cell by cell; what differs from another in brackets."""
    cells = []
    for c, name in enumerate(rows.names):
        text = rows.cell(at, c)
        same = other is None or text == other.cell(beside, c)
        cells.append(f"{name}: {text}" if same else f"{name}: [{text}]")
    return "\n".join(cells)
