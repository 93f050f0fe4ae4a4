"""Runs of pairs: trained on a small source, they translate texts, lines and files, and are measured."""

import io
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

import latente
from latente import checkpoint
from latente.cli import main
from latente.data.errors import DataError
from latente.data.pair_outputs import check_pair_output, columns, read_lines, write_pairs
from latente.evaluation.findings import Evaluation
from latente.evaluation.scores import Score
from latente.reports import verdict, write
from latente.run import PairRun
from latente.run.pairs import Translation
from latente.training import engine

COPY = [("".join(letters), "".join(letters).upper()) for letters in product("abcde", repeat=4)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that has learned to write letters large."""
    path = tmp_path_factory.mktemp("runs") / "run"
    made = latente.train(
        "seq2seq",
        COPY,
        out=path,
        steps=120,
        size="tiny",
        batch_size=64,
        label_smoothing=0.0,
        dropout=0.0,
        quiet=True,
        threads=1,
    )
    assert isinstance(made, PairRun)
    return made


def test_a_text_and_a_list_of_texts(trained):
    assert trained.translate("abcd") == "ABCD"
    assert trained.translate(["abcd", "", "edcb", "  "]) == ["ABCD", "", "EDCB", ""]
    assert trained.translate([]) == []


def test_held_out_sources_are_translated(trained):
    data = trained.reopened(COPY)
    rows = data.splits["test"]
    texts = [data.texts["source"][row] for row in rows]
    right = sum(a.upper() == b for a, b in zip(texts, trained.translate(texts)))
    assert right > 0.9 * len(texts)


def test_several_targets_come_best_first_with_what_the_model_gives_them(trained):
    (found,) = trained.hypotheses(["abcd"], 5)
    assert len(found) == 5 and found[0].text == "ABCD" and found[0].log_prob > -1
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len({one.text for one in found}) == 5


def test_what_is_drawn_depends_on_the_seed_and_on_no_neighbour(trained):
    texts = [source for source, _ in COPY[:300]]
    hot = trained.translate(texts, temperature=3.0)
    assert hot == trained.translate(texts, temperature=3.0) != trained.translate(texts, temperature=3.0, seed=1)
    assert trained.translate(texts[:1], temperature=3.0) == hot[:1]
    assert trained.translate(texts[:40], temperature=0) == trained.translate(texts[:40], beams=1)


def test_sampling_gives_pairs(trained):
    made = trained.sample(6, source=COPY)
    assert len(made["source"]) == len(made["target"]) == 6
    with pytest.raises(ValueError, match="in memory"):
        trained.sample(6)


def test_what_cannot_be_translated_is_said(trained):
    with pytest.raises(ValueError, match="text 2 has 10,000 tokens, more than 2 times the 4 of the longest"):
        trained.translate(["abcd", "a" * 10_000])
    with pytest.raises(ValueError, match="--beams"):
        trained.translate("abcd", beams=0)
    with pytest.raises(ValueError, match="--n"):
        trained.hypotheses(["abcd"], 0)
    (unseen,) = trained.hypotheses(["zz!?"])  # characters it never saw
    assert unseen[0].ended and -np.inf < unseen[0].log_prob < 0


def test_the_longest_target_bounds_what_is_written(trained):
    (found,) = trained.hypotheses(["abcd"], tokens=2)
    assert [len(one.text) for one in found] == [2] and not found[0].ended


def test_texts_somewhat_longer_than_any_of_training_are_read_and_change_no_other(trained):
    alone = trained.hypotheses(["abcd"], 2)
    short, longer = trained.hypotheses(["abcd", "abcdabcd"], 2)
    assert short == alone[0]
    assert longer and all(0 < len(one.text) <= 9 for one in longer)


def test_attention_shows_where_a_letter_comes_from(trained):
    maps = trained.attention_maps("abcd", "ABCD")
    layers, heads = trained.model.config.layers, trained.model.config.heads
    assert maps.shape == (layers, heads, 5, 5) and np.allclose(maps.sum(3), 1, atol=1e-5)


def test_a_run_is_measured_beside_simpler_methods(trained):
    found = trained.evaluate(source=COPY)
    assert found["token_error_rate"].value < 0.05 < found["token_error_rate"].reference
    assert found["sequence_error_rate"].value < 0.1
    assert found["chrf"].value > 90 and found["chrf"].better == "higher"
    assert found["nats_per_token"].value < 0.1 < found["nats_per_token"].reference
    assert {finding.answer for finding in found.findings} == {"good"}
    assert found.charts[0].bars["token error rate"].shape == (1,) and found.charts[1].title == "Errors by confidence"


def test_the_page_shows_held_out_pairs_with_their_confidence(trained):
    data, found = trained.reopened(COPY), trained.evaluate(source=COPY)
    held = {data.texts["source"][row] for row in data.splits["test"]}
    shown = found.details["pairs"]
    assert len(shown) >= 12 and {one["source"] for one in shown} <= held
    (best,) = trained.hypotheses([shown[0]["source"]])
    assert shown[0]["made"] == best[0].text and shown[0]["confidence"] == pytest.approx(best[0].confidence, rel=1e-4)
    assert best[0].tokens == len(best[0].text) + 1 and best[0].confidence == pytest.approx(np.exp(best[0].log_prob / 5))
    text = write(trained, found, []).read_text(encoding="utf-8")
    assert f"<dd>{shown[0]['made']}</dd>" in text and "Errors by confidence" in text and "Copied?" not in text
    assert "sample" not in text.split('id="figures"')[0].split("<main>")[1]
    assert json.loads((trained.path / "report" / "metrics.json").read_text())["details"]["pairs"] == shown


def test_a_verdict_says_how_many_targets_are_wrong(trained):
    real = trained.evaluate(source=COPY)

    def told(share, predicts="good", free=False):
        answer = "good" if free or share < 0.1 else "bad"
        scores = [
            Score("sequence_error_rate", share, None, "lower", "u", {}, "v", "right", answer),
            Score("nats_per_token", 1.0, None, "lower", "u", {}, "v", "predicts", predicts),
        ]
        return verdict(trained, replace(real, scores=scores, made={"free wording": free}))

    good, bad = told(0.04), told(0.57)
    assert good["sentence"] == "Good on all that was measured: 4% of new targets are not exactly right."
    assert good["command"].startswith("latente translate")
    assert bad["sentence"] == "Not good enough yet: 57% of new targets are not exactly right."
    assert "surest" in bad["next"] and "train longer" in bad["next"] and bad["command"].startswith("latente resume")
    assert told(0.97, free=True)["sentence"] == (
        "Better than simpler methods: 97% of new targets are not worded exactly as in the data."
    )
    assert told(0.04, "unsure")["sentence"] == (
        "Look before you rely on it: 4% of new targets are not exactly right and the model foresees new data about as well as "
        "simpler methods do."
    )


def test_where_training_longer_brought_no_more_the_verdict_asks_for_data(trained, monkeypatch):
    monkeypatch.setattr(
        "latente.reports.answers.records", lambda run: [{"step": 9, "event": "ending", "why": "no better"}]
    )
    scores = [Score("sequence_error_rate", 0.57, None, "lower", "u", {}, "v", "right", "bad")]
    found = verdict(trained, Evaluation(scores, made={"free wording": False}))
    assert "take more data" in found["next"] and found["command"] is None


def test_a_target_without_an_end_has_a_map_too(trained):
    longest = "A" * trained.spec.most_target
    assert trained.attention_maps("abcd", longest).shape[2] == len(longest)
    assert trained.looked("abcd", longest).target == list(longest)
    assert trained.looked("abcd", "ABCD").target == [*"ABCD", "end"]


def test_a_run_goes_through_the_command_line(tmp_path, capsys, monkeypatch):
    run = str(tmp_path / "run")
    flags = ["--steps", "6", "--size", "tiny", "--batch-size", "16", "--out", run, "--quiet", "--threads", "1"]
    assert main(["train", "attention-rnn", "roman", *flags]) == 0
    assert f"latente translate {run}" in capsys.readouterr().out
    assert main(["translate", run, "1984", "--tokens", "5"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    drawn = ["translate", run, "7", "--temperature", "1", "--top-k", "9", "--top-p", "0.9", "--n", "3", "--tokens", "5"]
    assert main(drawn) == main(drawn) == 0
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 7 and lines[:3] == lines[3:6]
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n2\n\n3\n"))
    assert main(["translate", run, "--beams", "1"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 5 and lines[2] == ""
    (tmp_path / "in.txt").write_text("7\n8\u2028\n9", encoding="utf-8")
    assert (
        main(["translate", run, "--file", str(tmp_path / "in.txt"), "--out", str(tmp_path / "o.jsonl"), "--n", "2"])
        == 0
    )
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().split("\n")[:-1]]
    assert [row["source"] for row in rows] == ["7", "7", "8\u2028", "8\u2028", "9", "9"]
    assert main(["translate", run, "$1$", "--attention", str(tmp_path / "map.png")]) == 0
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "empty.txt").touch()
    assert main(["data", "roman"]) == 0
    capsys.readouterr()
    for words, said in (
        (["translate", run, "1", "--attention", str(tmp_path / "map.png")], "already exists"),
        (["translate", run, "1", "--attention", str(tmp_path / "map.gif")], "ends in .png"),
        (["translate", run, "1" * 99], "text 1 has 99 tokens"),
        (["translate", run, "1", "--file", "x"], "not both"),
        (["translate", run, "1", "--beams", "2", "--temperature", "1"], "one or the other"),
        (["translate", run, "--file", str(tmp_path / "empty.txt")], "has no lines"),
        (["translate", run, "1", "--out", str(tmp_path / "o.jsonl")], "exists already"),
        (["translate", run, "1", "--out", str(tmp_path / "o.doc")], "targets go to"),
        (["translate", run, "--file", str(tmp_path / "nowhere")], "no file"),
        (["sample", run, "--n", "3"], "latente translate"),
        (["train", "seq2seq", "digits", "--steps", "1"], "not pairs of texts"),
        (["train", "seq2seq", "roman", "--steps", "1", "--stop", "judge"], "--stop loss"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_a_run_whose_tokenizers_are_others_is_refused(tmp_path):
    flags = {"steps": 2, "size": "tiny", "batch_size": 16, "quiet": True, "threads": 1}
    latente.train("seq2seq", "roman", out=tmp_path / "run", **flags)
    latente.train("seq2seq", COPY, out=tmp_path / "other", **flags)
    asset = tmp_path / "run" / "data" / "source" / "tokenizer.json"
    asset.write_text((tmp_path / "other" / "data" / "source" / "tokenizer.json").read_text())
    with pytest.raises(ValueError, match="not the tokenizers"):
        latente.load(tmp_path / "run").translate("1")


def test_shared_vocabularies_and_other_tokenizers_are_opened_again(tmp_path):
    flags = {"steps": 3, "size": "tiny", "batch_size": 16, "quiet": True, "threads": 1}
    for number, options in enumerate(
        ({"shared_vocabulary": True}, {"tokenizer": "bpe:300"}, {"target_tokenizer": "word"})
    ):
        out = tmp_path / str(number)
        latente.train("seq2seq", "roman", out=out, **flags, **options)
        assert len(latente.load(out).sample(2)["target"]) == 2


def test_the_checkpoint_with_the_fewest_wrong_tokens_is_kept_and_the_later_of_two_alike(tmp_path, monkeypatch):
    errors = iter([0.5, 0.3, 0.3, 0.4, 0.4, 0.2])
    monkeypatch.setattr(
        engine.Trainer, "validate", lambda self: {"nats_per_token": float(self.step), "token_error": next(errors)}
    )
    flags = {"size": "tiny", "batch_size": 16, "quiet": True, "threads": 1, "checkpoint_every": 2, "stop": "loss"}
    run = latente.train("seq2seq", "roman", out=tmp_path / "run", steps=40, **flags)
    assert run.record["stopped"].startswith("held-out token error was no better for 3 checkpoints")
    assert checkpoint.index(run.path)["best"] == "00000006" and run.record["plan"]["steps"] == 10


def test_a_model_of_sentences_that_learned_little_is_measured_by_shared_phrases_and_its_errors_have_maps(tmp_path):
    pairs = [(f"the cat sat on mat {n}", f"le chat est la {n % 7} .") for n in range(120)]
    flags = {"size": "tiny", "batch_size": 16, "quiet": True, "threads": 1, "tokenizer": "word"}
    found = latente.train("seq2seq", pairs, out=tmp_path / "run", steps=3, **flags).evaluate(source=pairs)
    assert 0 <= found["bleu"].value < 100 and found["bleu"].reference > 0 and found.made["free wording"]
    wrong = found.galleries[0]
    assert wrong.rows and any(wrong.maps)


def test_pairs_train_in_bfloat16_and_go_on_exactly(tmp_path, monkeypatch):
    flags = {"steps": 6, "size": "tiny", "batch_size": 16, "quiet": True, "threads": 1, "precision": "bfloat16"}
    whole = latente.train("seq2seq", "roman", out=tmp_path / "whole", checkpoint_every=3, **flags)
    log = engine.Trainer._log

    def cut(self, *given):
        if self.step == 5:
            raise KeyboardInterrupt
        return log(self, *given)

    monkeypatch.setattr(engine.Trainer, "_log", cut)
    with pytest.raises(KeyboardInterrupt):
        latente.train("seq2seq", "roman", out=tmp_path / "cut", checkpoint_every=3, **flags)
    monkeypatch.setattr(engine.Trainer, "_log", log)
    resumed = latente.resume(tmp_path / "cut", quiet=True)
    for (name, ours), theirs in zip(resumed.model.state_dict().items(), whole.model.state_dict().values()):
        assert torch.equal(ours, theirs), name


def test_files_of_targets(tmp_path):
    made = [[Translation("a\tb\nc", -1.0, -0.5, True, 6)], [Translation("é", -2.0, -1.0, True, 2)]]
    for name, content in (("o.txt", "a b c\né\n"), ("o.tsv", "x\ta b c\ny\té\n")):
        path = tmp_path / name
        assert write_pairs(path, columns(path, ["x", "y"], made)).read_text(encoding="utf-8") == content
    with pytest.raises(DataError, match="one line for each source"):
        check_pair_output(tmp_path / "p.txt", 2)
    (tmp_path / "in").write_bytes(b"a\r\nb\n\nc")
    assert read_lines(tmp_path / "in") == ["a", "b", "", "c"]
