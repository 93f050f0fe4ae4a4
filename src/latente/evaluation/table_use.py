# ---- use and likelihood ------------------------------------------------------------------------------------------------


def _useful(samples: Rows, held: Held, test: Rows, seed: int) -> list[Score]:
    """What a model trained on samples alone makes of real rows, beside one trained on as many real rows."""
    assert held.target is not None
    n = min(len(samples), len(held.train), USED)
    random = np.random.default_rng(key(seed, "use"))
    real = held.train.some(np.sort(random.permutation(len(held.train))[:n]))
    if not held.train.categorical[held.target]:
        return [_regressed(samples.some(slice(n)), real, test, held.target, seed)]
    known = np.unique(held.train.values[:, held.target][~np.isnan(held.train.values[:, held.target])])
    (value, f1, ranks), (usual, best, _) = (
        _classified(part, test, held.target, known, seed) for part in (samples.some(slice(n)), real)
    )
    gap = usual - value
    answer: Answer = "good" if gap <= 0.02 else "unsure" if gap <= 0.1 else "bad"
    name = test.names[held.target]
    words = f"trained on {n:,} samples, a model ranks {name} of real rows with an AUC of {value:.3f}; on as many real rows, {usual:.3f}"
    if answer != "good":
        words += ": add real rows to it, or train longer"
    ci = interval(value, *ranks) if min(ranks) > 1 else None
    return [
        Score(
            "tstr_auc",
            value,
            ci,
            "higher",
            "0.5 = no better than chance",
            {"trained on real rows": usual},
            words,
            "useful",
            answer,
        ),
        Score("tstr_macro_f1", f1, None, "higher", "mean over classes, 0 to 1", {"trained on real rows": best}),
    ]


def _classified(
    train: Rows, test: Rows, target: int, known: np.ndarray, seed: int
) -> tuple[float, float, tuple[int, int]]:
    """AUC (mean of one against the rest), macro-F1, and how many rows the AUC is from."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import f1_score

    inputs = [c for c in range(len(train.names)) if c != target]
    given: Any = np.array([train.categorical[c] for c in inputs], bool)
    (x, y), (u, v) = (_split(part, inputs, given, target) for part in (train, test))
    if len(np.unique(y)) < 2 or len(np.unique(v)) < 2:
        return 0.5, 0.0, (1, 1)
    model: Any = HistGradientBoostingClassifier(categorical_features=given, random_state=seed % 2**31).fit(x, y)
    chances = model.predict_proba(u)
    areas, sizes = [], []
    for code in known:
        truth = v == code
        if truth.any() and not truth.all():
            mine = np.flatnonzero(model.classes_ == code)
            score = chances[:, mine[0]] if len(mine) else np.zeros(len(u))
            areas.append(auc(score, truth))
            sizes.append((int((~truth).sum()), int(truth.sum())))
    f1 = float(f1_score(v, model.classes_[chances.argmax(1)], average="macro"))
    return float(np.mean(areas)) if areas else 0.5, f1, min(sizes, key=min) if sizes else (1, 1)


def _split(part: Rows, inputs: Sequence[int], given: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    there = ~np.isnan(part.values[:, target])
    return _bounded(part.values[there][:, list(inputs)], given), part.values[there, target]


def _regressed(samples: Rows, real: Rows, test: Rows, target: int, seed: int) -> Score:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.metrics import r2_score

    inputs = [c for c in range(len(test.names)) if c != target]
    given: Any = np.array([test.categorical[c] for c in inputs], bool)
    u, v = _split(test, inputs, given, target)

    def explained(part: Rows) -> float:
        x, y = _split(part, inputs, given, target)
        model: Any = HistGradientBoostingRegressor(categorical_features=given, random_state=seed % 2**31).fit(x, y)
        return float(r2_score(v, model.predict(u)))

    value, usual = explained(samples), explained(real)
    gap = usual - value
    answer: Answer = "good" if gap <= 0.05 else "unsure" if gap <= 0.2 else "bad"
    words = f"trained on samples, a model explains {value:.0%} of {test.names[target]} of real rows; on as many real rows, {usual:.0%}"
    return Score(
        "tstr_r2",
        value,
        None,
        "higher",
        "share of variance explained",
        {"trained on real rows": usual},
        words,
        "useful",
        answer,
    )


def _likelihood(held: Held) -> list[Score]:
    """Nats a test row costs, beside what independent columns cost; and whether the model knows its training rows."""
    assert held.nats is not None
    train, test = held.nats
    half = Z * float(test.std(ddof=1)) / len(test) ** 0.5 if len(test) > 1 else 0.0
    value = float(test.mean())
    score = Score("nats_per_row", value, (value - half, value + half), "lower", "nats per row", {"training rows": float(train.mean())},
                  f"a held-out row costs {value:.2f} nats, a training row {train.mean():.2f}", "predicts", None)  # fmt: skip
    return [score, membership(train, test, "rows")]
