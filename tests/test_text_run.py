"""A language model from a source to text: what a run of text does, in Python and at the command line."""

import html
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

import latente
from latente.cli import main
from latente.data.tokenizer import Tokenizer
from latente.reports import write

QUICK = {"context": 32, "size": "tiny", "width": 32, "layers": 2, "batch_size": 8, "threads": 1, "quiet": True}
FLAGS = "--context 32 --size tiny --width 32 --layers 2 --batch-size 8 --threads 1 --quiet"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return latente.train("gpt", "pydoc", out=tmp_path_factory.mktemp("text") / "run", steps=40, **QUICK)


def test_the_same_seed_gives_the_same_text(run):
    again = latente.load(run.path)
    assert run.sample(3, seed=5) == again.sample(3, seed=5) != run.sample(3, seed=6)
    assert len(set(run.sample(3, seed=5)["text"])) == 3


def test_rows_do_not_depend_on_how_many_are_asked_for(run):
    few, many = run.sample(2, tokens=20)["text"], run.sample(70, tokens=20)["text"]
    assert many[:2] == few


def test_a_stream_is_the_completion_piece_by_piece(run):
    pieces = list(run.stream("The ", 60, seed=1))
    assert "".join(pieces) == run.complete("The ", 60, seed=1)
    assert len(pieces) > 30
    batch = run.complete(["The ", "A much longer prompt than the context has room for, ", "x"], 60, seed=1)
    assert batch[0] == run.complete("The ", 60, seed=1)


def test_text_ends_before_a_stop_string(run):
    whole = run.complete("The ", 100, seed=2)
    stop = whole[40:42]
    cut = run.complete("The ", 100, seed=2, stop=[stop])
    assert cut == whole[: whole.find(stop)] == "".join(run.stream("The ", 100, seed=2, stop=[stop]))


def test_a_prompt_of_unknown_characters_works_and_none_is_written(run):
    text = run.complete("日本 ", 80)
    assert len(text) > 0 and "\ufffd" not in text


def test_attention_maps_of_a_text(run):
    maps = run.attention_maps("def f(x):")
    assert maps.shape == (2, 2, 9, 9) and np.allclose(maps.sum(-1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="at least one"):
        run.attention_maps("")


@pytest.fixture(scope="module")
def found(run):
    return run.evaluate()


def test_scores_stand_beside_references(run, found):
    scores = {score.name: score for score in found}
    assert {"nats_per_char", "bits_per_byte", "perplexity", "judge_auc", "copied_passages", "membership_auc"} <= set(
        scores
    )
    assert {finding.question for finding in found.findings} == {"predicts", "faithful", "varied", "copied"}
    assert [len(items) for _, items in found.galleries[0].rows] == [8, 8] and found.charts
    nats = scores["nats_per_char"]
    assert nats.better == "lower" and nats.ci[0] < nats.value < nats.ci[1]
    assert any("bz2" in kind for kind in nats.references) and any("gram" in kind for kind in nats.references)
    assert 1.0 < nats.value < 4.5
    data = run.reopened()
    total = nats.value * (data.characters["test"] - 1)
    assert scores["bits_per_byte"].value == pytest.approx(total / np.log(2) / (data.bytes["test"] - 1), rel=1e-3)


def test_the_page_shows_which_lines_cost_most(run, found):
    path = write(run, found, ())
    page, metrics = path.read_text(encoding="utf-8"), json.loads((path.parent / "metrics.json").read_text())
    told = metrics["details"]["costs"]
    assert told["unit"] == "bits a character" and told["of"] == "lines"
    for end, order in (("costliest", -1), ("cheapest", 1)):
        bits = [order * one["bits_per_char"] for one in told[end]]
        assert bits == sorted(bits) and len(bits) == 12
        for one in told[end]:
            assert f"{one['bits_per_char']:.2f} bits a character" in page
        assert f"{end.capitalize()} lines" in page and html.escape(told[end][0]["text"], quote=False) in html.unescape(
            page
        )
    (chart,) = (chart for chart in metrics["charts"] if chart["title"] == "Bits by line")
    nats = found["nats_per_char"]
    assert chart["marks"] == pytest.approx({kind: value / np.log(2) for kind, value in nats.references.items()})
    assert 0.6 < told["test"]["mean"] / (nats.value / np.log(2)) < 1.4
    assert all(f"{kind}: " in page for kind in nats.references)


def test_the_command_line_from_a_file_to_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mes mots é.txt").write_text("Il était une fois un très petit modèle.\n" * 300, encoding="utf-8")
    assert main(["data", "mes mots é.txt"]) == 0
    assert "12,000" in capsys.readouterr().out
    assert main(["train", "gpt", "mes mots é.txt", "--out", "run", "--steps", "60", *FLAGS.split()]) == 0
    assert 'latente sample run --prompt "..."' in capsys.readouterr().out
    assert main(["sample", "run", "--prompt", "Il était", "--tokens", "30", "--temperature", "0"]) == 0
    assert capsys.readouterr().out.startswith("Il était")
    assert main(["sample", "run", "--n", "3", "--tokens", "10"]) == 0
    assert capsys.readouterr().out.count("-----") == 2
    for out in ("made.txt", "made.jsonl", "made.parquet"):
        assert main(["sample", "run", "--n", "5", "--tokens", "12", "--out", out]) == 0
    rows = [json.loads(line)["text"] for line in (tmp_path / "made.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows == pq.read_table(tmp_path / "made.parquet")["text"].to_pylist() and len(rows) == 5
    capsys.readouterr()
    assert main(["evaluate", "run"]) == 0
    shown = capsys.readouterr().out
    assert "nats_per_char" in shown and "bz2" in shown and "LOSES" in shown  # one line 300 times is bz2's to win
    assert main(["evaluate", "run", "--json", "--fail-if", "nats_per_char>0.001"]) == 1
    printed = capsys.readouterr()
    assert {s["name"] for s in json.loads(printed.out)["scores"]} >= {
        "nats_per_char"
    } and "nats_per_char>0.001" in printed.err


def test_a_user_s_own_text_in_memory(tmp_path):
    texts = ["one two three four five six seven\n"] * 100
    run = latente.train("gpt", texts, out=tmp_path / "run", steps=8, **QUICK)
    assert len(run.sample(2)["text"]) == 2
    with pytest.raises(ValueError, match="in memory"):
        run.evaluate()


def test_any_file_trains_as_bytes(tmp_path):
    (tmp_path / "noise.bin").write_bytes(np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes())
    run = latente.train("gpt", tmp_path / "noise.bin", out=tmp_path / "run", steps=8, tokenizer="byte", **QUICK)
    assert isinstance(run.complete("\x00\x01", 20), str)


def test_a_run_whose_files_do_not_fit_together_is_said(tmp_path, run):
    for broken in ("weights", "tokenizer", "numbers"):
        shutil.copytree(run.path, tmp_path / broken)
    tensors = load_file(run.path / "weights.safetensors")
    save_file({name: t[..., :-1].copy() for name, t in tensors.items()}, tmp_path / "weights" / "weights.safetensors")
    save_file(
        {name: t * np.float32("nan") for name, t in tensors.items()}, tmp_path / "numbers" / "weights.safetensors"
    )
    Tokenizer.train("byte", []).save(tmp_path / "tokenizer" / "data")
    for broken, says in (("weights", "not those of the model"), ("numbers", "no finite numbers")):
        with pytest.raises(ValueError, match=says):
            latente.load(tmp_path / broken)
    with pytest.raises(ValueError, match="not this run's tokenizer"):
        latente.load(tmp_path / "tokenizer").complete("The ", 3)


def test_characters_unknown_to_a_borrowed_tokenizer_are_said(tmp_path, run):
    (tmp_path / "strange.txt").write_text("the ☃ of \u2603\u2604 and so on\n" * 200, encoding="utf-8")
    borrowed = str(run.path / "data" / "tokenizer.json")
    strange = latente.train("gpt", tmp_path / "strange.txt", out=tmp_path / "run", steps=4, tokenizer=borrowed, **QUICK)
    assert "unknown to the tokenizer" in strange.evaluate().scores[0].verdict


def test_a_bpe_model_counts_characters_not_tokens(tmp_path):
    run = latente.train("gpt", "pydoc", out=tmp_path / "run", steps=30, tokenizer="bpe:400", **QUICK)
    scores = {score.name: score for score in run.evaluate()}
    assert scores["nats_per_char"].value < np.log(scores["perplexity"].value)  # a token is more than a character
    assert run.complete("The value", 10)


MISTAKES = {
    "100 characters": (b"abcdefghij" * 10, [], "at least 1,000"),
    "an empty file": (b"", [], "empty"),
    "one symbol": (b"a" * 5000, [], "one character"),
    "a binary file": (b"\x00\x01\x02" * 2000, [], "--tokenizer byte"),
    "a bad byte": ("é".encode() * 2000 + b"\xff" + b"x" * 1000, [], "a.txt: byte 4,000"),
    "no such tokenizer": (b"some text\n" * 500, ["--tokenizer", "words"], "--tokenizer"),
    "images' flag": (b"some text\n" * 500, ["--image-size", "32"], "image-size"),
    "a context too long": (b"some text\n" * 500, ["--context", "4000"], "--context"),
    "no such shape": (b"some text\n" * 500, ["--shape", "gpt3"], "--shape"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_get_exit_code_2_and_leave_no_run(what, tmp_path, monkeypatch, capsys):
    content, flags, says = MISTAKES[what]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(content)
    assert main(["train", "gpt", "a.txt", "--steps", "2", "--quiet", *flags]) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_flags_of_the_other_kind_are_refused(run, tmp_path, capsys):
    for words, says in (
        (["sample", str(run.path), "--label", "3"], "--label"),
        (["sample", str(run.path), "--out", str(tmp_path / "a.png")], "a.png"),
        (["sample", str(run.path), "--top-k", "0"], "--top-k"),
        (["denoise", str(run.path), "digits", "--out", str(tmp_path / "x")], "cannot denoise"),
    ):
        assert main(words) == 2
        assert says in capsys.readouterr().err
