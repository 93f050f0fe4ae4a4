"""Pairs of texts: what is read from which source, what is refused in one line, splits, tokens and the order of an epoch."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latente.data import named
from latente.data.errors import DataError
from latente.data.pairing import open_pairs
from latente.data.pairs import PairOptions, decoded
from latente.data.sources import kind, open_source
from latente.data.tokenizer import Tokenizer
from latente.spec import PairSpec

PAIRS = [(f"word {n}", f"wort {n} {n % 7}") for n in range(60)]


def opened(source, **options):
    return open_pairs(source, PairOptions(**options), lambda what, done, total: None)


def pairs_of(data):
    return list(zip(data.texts["source"], data.texts["target"]))


def refused(source, **options):
    with pytest.raises(DataError) as error:
        opened(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- what people have ----------------------------------------------------------------------------------------------


def tsv(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def written(tmp_path, what):
    """PAIRS in one form, and the options that read it."""
    if what == "tsv":
        return tsv(tmp_path / "p.tsv", PAIRS), {}
    if what == "tsv with a header":
        return tsv(tmp_path / "p.tsv", [("source", "target"), *PAIRS]), {}
    if what == "txt of three columns":
        rows = [(target, "by me", source) for source, target in PAIRS]
        return tsv(tmp_path / "p.txt", rows), {"source_column": "3", "target_column": "1"}
    if what == "csv":
        path = tmp_path / "p.csv"
        path.write_text("en,de\n" + "".join(f'"{a}",{b}\n' for a, b in PAIRS), encoding="utf-8")
        return path, {}
    if what == "jsonl":
        path = tmp_path / "p.jsonl"
        path.write_text("".join(json.dumps({"id": 1, "en": a, "de": b}) + "\n" for a, b in PAIRS), encoding="utf-8")
        return path, {"source_column": "en", "target_column": "de"}
    if what == "parquet":
        path = tmp_path / "p.parquet"
        source, target = zip(*PAIRS)
        pq.write_table(pa.table({"n": list(range(60)), "target": list(target), "source": list(source)}), path)
        return path, {}
    if what == "two files":
        path, other = tmp_path / "p.en", tmp_path / "p.de"
        path.write_text("".join(a + "\n" for a, _ in PAIRS), encoding="utf-8")
        other.write_text("\r\n".join(b for _, b in PAIRS), encoding="utf-8", newline="")
        return path, {"targets": str(other)}
    if what == "columns":
        source, target = zip(*PAIRS)
        return {"source": list(source), "target": list(target)}, {}
    return PAIRS, {}


FORMS = (
    "tsv",
    "tsv with a header",
    "txt of three columns",
    "csv",
    "jsonl",
    "parquet",
    "two files",
    "columns",
    "a list",
)


@pytest.mark.parametrize("what", FORMS)
def test_every_source_gives_the_same_pairs_and_splits(what, tmp_path):
    source, options = written(tmp_path, what)
    data = opened(source, **options)
    assert pairs_of(data) == PAIRS
    expected = opened(PAIRS)
    for split, rows in expected.splits.items():
        assert np.array_equal(data.splits[split], rows)


def test_a_translation_set_of_the_hub(tmp_path):
    import datasets

    rows = [{"en": a, "de": b} for a, b in PAIRS]
    parts = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"translation": rows[:50]}),
        test=datasets.Dataset.from_dict({"translation": rows[50:] + rows[:1]}),
    )
    parts.save_to_disk(tmp_path / "set")
    data = opened(f"hf:{tmp_path / 'set'}")
    names = dict.fromkeys(pairs_of(data))
    assert set(names) in (set(PAIRS), {(b, a) for a, b in PAIRS})
    assert list(data.splits["test"]) != [] and set(data.splits["test"]) == set(range(50, 61))
    assert 0 not in data.splits["train"] and 0 not in data.splits["validation"]  # its source is in the test set


def test_cmudict_keeps_the_pronunciations_of_a_word_together():
    data = opened("cmudict")
    assert data.sides["target"].tokenizer.kind == "word" and data.sides["source"].tokenizer.kind == "char"
    assert 60 < data.spec.target < 90 and len(data.texts["source"]) > 130_000
    words = {split: {data.texts["source"][row] for row in rows} for split, rows in data.splits.items()}
    assert not words["train"] & words["validation"] and not (words["train"] | words["validation"]) & words["test"]
    assert ("hello", "HH AH0 L OW1") in pairs_of(data)


def test_roman_numerals():
    numerals = dict(named.roman())
    assert len(numerals) == 3999
    assert [numerals[n] for n in ("4", "49", "1984", "3999")] == ["IV", "XLIX", "MCMLXXXIV", "MMMCMXCIX"]


def test_what_kind_a_source_is(tmp_path):
    assert kind(PAIRS) == kind("roman") == kind([["a", "b"]]) == "pair"
    assert kind(["a", "b"]) == "text"
    assert kind(tsv(tmp_path / "p.tsv", PAIRS)) == "table"  # unless pairs are asked for
    assert open_source(tmp_path / "p.tsv", PairOptions()).spec.kind == "pair"
    with pytest.raises(DataError, match="digits is images, not pairs of texts"):
        open_source("digits", PairOptions())


# ---- what can be wrong -------------------------------------------------------------------------------------------------


def test_files_of_other_lengths(tmp_path):
    path, other = tmp_path / "a.en", tmp_path / "a.de"
    path.write_text("a\nb\nc\n")
    other.write_text("a\nb\n")
    assert "3 lines" in (said := refused(path, targets=str(other))) and "2" in said


def test_other_line_ends_of_unicode_do_not_part_lines(tmp_path):
    path, other = tmp_path / "a.en", tmp_path / "a.de"
    path.write_text("".join(f"a\u2028b\x0c{n}\n" for n in range(40)), encoding="utf-8")
    other.write_text("".join(f"x{n}\n" for n in range(40)), encoding="utf-8")
    assert pairs_of(opened(path, targets=str(other)))[7] == ("a\u2028b\x0c7", "x7")


def test_a_tab_inside_a_text(tmp_path):
    rows = [*PAIRS[:7], ("a\tb", "c"), *PAIRS[7:]]
    assert "line 8 has 2 tabs, other lines 1" in refused(tsv(tmp_path / "bare.tsv", rows))
    quoted = [[f'"{cell}"' for cell in row] for row in rows]
    assert pairs_of(opened(tsv(tmp_path / "quoted.tsv", quoted)))[7] == ("a\tb", "c")


def test_a_tab_inside_a_text_of_other_files(tmp_path):
    rows = [*PAIRS[:7], ("a\tb", "c"), *PAIRS[7:]]
    named = [{"source": source, "target": target} for source, target in rows]
    files = [tmp_path / f"p.{suffix}" for suffix in ("csv", "jsonl", "parquet")]
    files[0].write_text("source,target\n" + "".join(f'"{a}","{b}"\n' for a, b in rows), encoding="utf-8")
    files[1].write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(named), files[2])
    for path in files:
        assert pairs_of(opened(path)) == rows, path.name


def test_quotes_that_are_signs_like_others(tmp_path):
    rows = [*PAIRS, ('"Go!" she said.', "„Geh!“"), ('"', "x")]
    assert pairs_of(opened(tsv(tmp_path / "p.tsv", rows))) == rows


def test_no_tab_no_pair_no_such_column(tmp_path):
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    assert "no tab" in refused(tmp_path / "p.txt")
    (tmp_path / "p.tsv").write_text("")
    assert "is empty" in refused(tmp_path / "p.tsv")
    (tmp_path / "q.tsv").write_text("\t\n \t\n")
    assert "no pair" in refused(tmp_path / "q.tsv")
    path = tsv(tmp_path / "r.tsv", PAIRS)
    assert "no column 'en'" in refused(path, source_column="en", target_column="de")
    assert "go together" in refused(path, source_column="en")
    assert "--source-column" in refused(tsv(tmp_path / "s.tsv", [(*pair, "me") for pair in PAIRS]))
    assert "too few" in refused(PAIRS[:10])
    assert "two strings each" in refused([("a", "b", "c")])
    assert "is a folder" in refused(tmp_path)
    assert "mend the row" in refused(
        _lines(tmp_path / "t.jsonl", ['{"source": "a", "target": "b"}', '{"source": 1, "target": "b"}'])
    )


def _lines(path, rows):
    path.write_text("\n".join(rows))
    return path


def test_pairs_with_an_empty_side_are_left_out_and_counted():
    data = opened([*PAIRS, ("a", ""), (" ", "b"), ("", "")])
    assert pairs_of(data) == PAIRS and data.audit.empty == 3
    assert any("3 pairs lack" in line for line in data.warnings())


def test_one_character_pairs():
    data = opened([(chr(97 + n % 26) + "x" * (n // 26), "b") for n in range(40)] + [("a", "b")])
    batch = data.batch(np.array([40]))
    assert batch["source"].shape == (1, 2) and batch["target"].shape == (1, 3)
    assert batch["target"][0].tolist()[::2] == [PairSpec.begin, PairSpec.end]


def test_a_line_of_ten_thousand_characters_is_left_out_or_kept_where_that_is_asked_for():
    data = opened([*PAIRS, ("a" * 10_000, "b")])
    assert data.spec.longest_source < 20 and data.audit.long == 1
    assert any("1 pairs are too long and left out, first pairs, pair 60" in line for line in data.warnings())
    whole = opened([*PAIRS, ("a" * 10_000, "b")], longest=10_000)
    assert whole.spec.longest_source == 10_001
    assert whole.batch(np.array([60, 0]))["source"].shape == (2, 10_001)
    assert "raise it" in refused(PAIRS, longest=1)


# ---- tokens and splits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["char", "byte", "word", "bpe:300"])
def test_tokens_say_what_the_texts_say(tokenizer):
    pairs = [(f"Zug {n} fährt ab", f"train {n} läuft") for n in range(80)]
    data = opened(pairs, tokenizer=tokenizer)
    rows = data.splits["train"]
    batch = data.batch(rows)
    for side, tokens in batch.items():
        assert tokens.dtype.is_signed and int(tokens.max()) < getattr(data.spec, side)
        for row, line in zip(rows, tokens.numpy()):
            assert data.sides[side].decode(line) == data.texts[side][row]
            inside = line[line != PairSpec.pad]
            assert inside[-1] == PairSpec.end and (inside == PairSpec.end).sum() == 1
            assert (inside[0] == PairSpec.begin) == (side == "target")
            assert (line[len(inside) :] == PairSpec.pad).all()


def test_a_row_is_the_same_whatever_is_in_its_batch():
    data = opened("roman")
    alone, among = data.batch(np.array([7])), data.batch(np.arange(2000))
    for side in alone:
        width = alone[side].shape[1]
        assert alone[side][0].tolist() == among[side][7, :width].tolist()
        assert (among[side][7, width:] == PairSpec.pad).all()


def test_the_vocabulary_is_that_of_the_training_pairs():
    pairs = [(chr(0x4E00 + n) * 3, "x") for n in range(200)]
    data = opened(pairs)
    known = {data.texts["source"][row][0] for row in data.splits["train"]}
    assert data.sides["source"].tokenizer.size == 2 + len(known)
    assert data.audit.unknown["source"] == 3 * (len(data.splits["validation"]) + len(data.splits["test"]))


def test_one_vocabulary_for_both_sides():
    data = opened(PAIRS, shared_vocabulary=True)
    assert data.spec.shared and data.spec.source == data.spec.target
    assert data.sides["source"].tokenizer is data.sides["target"].tokenizer
    assert "name one --tokenizer" in refused("cmudict", shared_vocabulary=True) if _has_cmudict() else True


def _has_cmudict():
    try:
        return bool(named.cmudict())
    except DataError:
        return False


def test_saved_tokenizers_make_the_same_dataset_again(tmp_path):
    for number, options in enumerate(({"source_tokenizer": "word"}, {"shared_vocabulary": True})):
        data = opened("roman", **options)
        data.save_assets(tmp_path / str(number))
        again = open_source("roman", PairOptions(**options).by(tmp_path / str(number)))
        assert again.fingerprint == data.fingerprint and again.spec == data.spec


def test_sources_are_on_one_side_and_row_order_does_not_matter():
    pairs = [(f"{n}", f"{n} a") for n in range(300)] + [(f"{n}", f"{n} b") for n in range(300)]
    data, other = opened(pairs), opened(pairs[::-1])
    for split, rows in data.splits.items():
        sources = {data.texts["source"][row] for row in rows}
        assert len(rows) == 2 * len(sources)
        assert sources == {other.texts["source"][row] for row in other.splits[split]}
    assert sum(map(len, data.splits.values())) == 600


def test_held_out_pairs_come_in_no_order_of_the_source():
    rows = opened("roman").splits["validation"]
    assert sorted(rows) != list(rows)
    assert np.corrcoef(np.arange(len(rows)), rows)[0, 1] ** 2 < 0.1


def test_an_epoch_is_every_pair_once_in_blocks_of_like_length():
    data = opened("roman")
    rows = data.order(0, 0)
    assert sorted(rows) == sorted(data.splits["train"])
    assert np.array_equal(rows, data.order(0, 0))
    assert not np.array_equal(rows, data.order(0, 1)) and not np.array_equal(rows, data.order(1, 0))
    lengths = data.sides["target"].lengths
    padded = [lengths[rows[at : at + 64]].max() * len(rows[at : at + 64]) for at in range(0, len(rows), 64)]
    assert sum(padded) < 1.25 * lengths[rows].sum()
    means = [lengths[rows[at : at + 64]].mean() for at in range(0, len(rows), 64)]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.7  # neither short to long nor long to short


def test_previews_show_the_source_and_what_should_come(tmp_path):
    data = opened("roman")
    shown = data.batch(data.splits["validation"][:3])["target"][:, 1:].numpy()
    data.preview({"target": shown}, tmp_path / "a" / "00000001")
    said = (tmp_path / "a" / "00000001.txt").read_text()
    row = data.splits["validation"][0]
    source, target = data.texts["source"][row], data.texts["target"][row]
    assert said.startswith(f"{source}\nshould be: {target}\nmade:      {target}\n")
    assert data.condition(500).shape[0] == 500


def test_what_is_said_of_pairs():
    said = dict(opened("roman").describe())
    assert said["pairs"] == "3,999" and "characters" in said["sources"]


def test_the_word_tokenizer():
    made = Tokenizer.train("word", ["the cat", "the  dog\tran"])
    assert made.kind == "word" and made.size == 5
    assert made.decode(made.encode("cat  the")) == "cat the"
    assert made.decode(made.encode("the <|end|> cow")) == "the \ufffd \ufffd"
    assert Tokenizer(made.json).kind == "word"
    ids, sizes = made.encode_each(["the cat", "", "ran"])
    assert sizes.tolist() == [2, 0, 1] and made.decode(ids) == "the cat ran"


def test_special_tokens_end_a_text():
    made = Tokenizer.train("char", ["ab"])
    a, b = (int(token) + PairSpec.special for token in made.encode("ab"))
    assert decoded(made, [PairSpec.begin, a, b, PairSpec.end, a, PairSpec.pad]) == "ab"


def test_options_that_cannot_be():
    for options, said in (
        ({"validation": 0.0}, "--validation"), ({"test": 0.5}, "--test"), ({"longest": 0}, "--longest"),
        ({"bad_bytes": "x"}, "--bad-bytes"), ({"shared_vocabulary": True, "source_tokenizer": "char"}, "--shared-vocabulary"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=said):
            PairOptions(**options)
    assert "char, byte, word" in refused(PAIRS, tokenizer="syllable")
