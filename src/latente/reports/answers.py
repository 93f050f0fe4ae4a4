"""The answers: one sentence on top, what to do next and the command for it, and a card for each question.

findings --verdict--> the worst answer as a sentence, next step, command
         --cards----> a card a question, also for what was not measured
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from latente.evaluation.findings import Evaluation
from latente.evaluation.scores import Answer, Question
from latente.reports.curves import records
from latente.reports.glossary import title
from latente.reports.words import listed

if TYPE_CHECKING:
    from latente.run import Run


class Asked(NamedTuple):
    """A question, and each answer as half a sentence."""

    asks: str
    good: str
    unsure: str
    bad: str


ASKED: dict[Question, Asked] = {
    "right": Asked("Is it right?", *["{wrong:.3g}% of new targets are not {exactly}"] * 3),
    "faithful": Asked("Faithful?", "the samples pass for real", "the samples may not pass for real", "the samples do not pass for real"),
    "varied": Asked("Varied?", "the samples cover the real data", "the samples may leave kinds of data out",
                    "the samples leave much of the real data out"),
    "copied": Asked("Copied?", "no sign of copies", "copies cannot be ruled out", "some samples repeat the training data"),
    "useful": Asked("Useful?", "the samples can stand in for real data", "the samples stand in for real data only in part",
                    "the samples cannot stand in for real data"),
    "predicts": Asked("Does it predict?", "the model foresees new data better than simpler methods do",
                      "the model foresees new data about as well as simpler methods do",
                      "the model foresees new data worse than simpler methods do"),
}  # fmt: skip
"""in the order of the page"""

TARGETS: tuple[Question, ...] = ("right", "predicts")
"""what is asked of a model of pairs, which makes targets of sources and no samples; of the others all else is"""
PRESSING: tuple[Question, ...] = ("right", "copied", "faithful", "varied", "predicts", "useful")
LONGER = "Train longer, or a larger model; then evaluate again."
NEXT: dict[tuple[Question, Answer], str] = {
    ("copied", "bad"): "Do not hand out these samples. More data, a smaller model or a shorter training copies less.",
    (
        "copied",
        "unsure",
    ): "Look at the pairs most like copies below before you hand out samples; more data would settle it.",
    ("faithful", "unsure"): "Train longer; or evaluate on more real data, which would settle it.",
    ("useful", "bad"): "Train longer, and use samples beside real data, not instead of it.",
    ("useful", "unsure"): "Use samples beside real data, not instead of it; or train longer.",
}
"""what to do; what is not here is `LONGER`"""
OPENING = {"bad": "Not good enough yet", "unsure": "Not sure yet", "good": "Good on all that was measured"}
LOOK = "Look at the errors it was surest of, below: they show what is wrong in the data, and what it has not learned."


def verdict(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """The answer in one sentence, what to do next, and the command for it."""
    found: dict[Question, Answer] = {finding.question: finding.answer for finding in evaluation.findings}
    if not found:
        return _said("Too little was measured for a verdict.", "Evaluate on more real data.")
    worst: Answer = next(answer for answer in reversed(get_args(Answer)) if answer in found.values())
    if run.spec.kind == "pair":
        return _of_targets(run, evaluation, found, worst)
    if worst == "good":
        return _said(f"{OPENING[worst]}.", "Make as many samples as you need.", _command(run, longer=False))
    pressing: Question = next(question for question in PRESSING if found.get(question) == worst)
    parts = [getattr(phrases, worst) for question, phrases in ASKED.items() if found.get(question) == worst]
    subject = "the samples " if parts[0].startswith("the samples ") else ""
    told = listed([parts[0], *(part.removeprefix(subject) for part in parts[1:])])
    opening = "Not to be handed out" if found.get("copied") == "bad" else OPENING[worst]
    line = None if pressing == "copied" else _command(run, longer=True)
    return _said(f"{opening}: {told}.", NEXT.get((pressing, worst), LONGER), line)


def _of_targets(run: Run, evaluation: Evaluation, found: Mapping[Question, Answer], worst: Answer) -> dict[str, Any]:
    """The verdict on a model of pairs: how many of its targets are wrong, whatever else is said."""
    asked: list[Question] = [
        question for question in TARGETS if question == "right" or found.get(question) == worst != "good"
    ]
    told = listed([_phrase(question, worst, evaluation) for question in asked])
    if worst == "good":
        opening = "Better than simpler methods" if evaluation.made["free wording"] else OPENING[worst]
        return _said(f"{opening}: {told}.", f"Translate with it. {LOOK}", _command(run, longer=False))
    opening = "Look before you rely on it" if worst == "unsure" else OPENING[worst]
    if any(line.get("event") == "ending" for line in records(run)):
        return _said(
            f"{opening}: {told}.", f"{LOOK} Training longer brought no more: take more data, or a larger model."
        )
    return _said(f"{opening}: {told}.", f"{LOOK} Then train longer, or on more data.", _command(run, longer=True))


def _phrase(question: Question, answer: Answer, evaluation: Evaluation) -> str:
    """The answer as half a sentence; of targets with how many are wrong."""
    phrase = getattr(ASKED[question], answer)
    if question != "right":
        return phrase
    exactly = "worded exactly as in the data" if evaluation.made["free wording"] else "exactly right"
    return phrase.format(wrong=100 * evaluation["sequence_error_rate"].value, exactly=exactly)


def asked_of(kind: str) -> list[Question]:
    """What is asked of a model of this kind of data."""
    return list(TARGETS) if kind == "pair" else [question for question in ASKED if question != "right"]


def _said(sentence: str, step: str, line: str | None = None) -> dict[str, Any]:
    return {"sentence": sentence, "next": step, "command": line}


def _command(run: Run, longer: bool) -> str:
    """A line for a shell that trains the run longer, or uses it."""
    out = {"image": ("1000", "samples"), "text": ("100", "samples.txt"), "table": ("1000", "rows.csv")}
    words = ("resume", str(run.path), "--budget", "+10m")
    if not longer and run.spec.kind == "pair":
        words = ("translate", str(run.path), "--file", "sources.txt", "--out", "targets.txt")
    elif not longer:
        n, place = out[run.spec.kind]
        words = ("sample", str(run.path), "--n", n, "--out", place)
    own = ["--model-file", f"{run.record['model']}.py"] if run.record["model_sha256"] else []
    return shlex.join(["latente", *words, *own])


def cards(run: Run, evaluation: Evaluation) -> list[dict[str, Any]]:
    """One a question: its answer and what it rests on, or why there is none."""
    found: dict[Question, Answer] = {finding.question: finding.answer for finding in evaluation.findings}
    reasons = {finding.question: finding.words for finding in evaluation.findings if finding.answer != "good"}
    reasons.pop("right", None)  # its phrase says it
    made = []
    for question in asked_of(run.spec.kind):
        phrases = ASKED[question]
        scores = [score for score in evaluation.scores if score.question == question]
        answer = found.get(question)
        card: dict[str, Any] = {
            "asks": phrases.asks,
            "answer": answer or "none",
            "word": answer or "not measured",
            "rests": [],
            "reason": reasons.get(question),
        }
        if answer:
            card |= {
                "phrase": _phrase(question, answer, evaluation),
                "rests": [title(s.name) for s in scores if s.answer == answer],
            }
        elif scores:
            card |= {
                "answer": "informs",
                "word": "for information",
                "phrase": "measured below; nothing here passes or fails",
            }
        else:
            card["phrase"] = _why_not(question, run)
        made.append(card)
    return made


def _why_not(question: Question, run: Run) -> str:
    """Why nothing was measured that answers a question."""
    if question == "useful" and not run.record["spec"].get("classes"):
        return "the data has no labels to try the samples out with"
    if question == "predicts" and not any(hasattr(run.model, name) for name in ("log_prob", "logits", "rate")):
        return f"a model of this kind ({run.family.name}) makes samples, not predictions"
    return "too little data, or no measurement answers it"
