"""The text half of the data room: whatever people have becomes the same tokens, or is refused in one clear line."""

import json
import os
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latente.data import text_sources, tokenizing
from latente.data.dataset import ImageOptions
from latente.data.errors import DataError
from latente.data.sources import kind, lasting, open_source
from latente.data.text import TextOptions
from latente.data.tokenizer import Tokenizer, pieces

WORDS = ["the", "of", "and", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are", "with", "they", "café",
         "naïve", "über", "«", "“quoted”", "日本", "語", "😀", "a.b", "12", "3.5"]  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KINDS = ("char", "byte", "bpe:400")


def prose(n=400, seed=0, words=WORDS):
    """`n` sentences."""
    chosen = random.Random(seed)
    ends = (". ", ".\n", "!\n\n", "  \n", ", ")
    return "".join(" ".join(chosen.choices(words, k=7)) + chosen.choice(ends) for _ in range(n))


def opened(source, tokenizer="char", **options):
    return open_source(source, TextOptions(tokenizer, **options))


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


# ---- what people have ----------------------------------------------------------------------------------------------


def rows_of(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": list(range(len(rows))), "text": rows}), path, row_group_size=3)
    else:
        path.write_text("".join(json.dumps({"id": i, "text": row}) + "\n" for i, row in enumerate(rows)))
    return path


@pytest.mark.parametrize("tokenizer", KINDS)
def test_every_kind_of_source_gives_the_same_tokens(tmp_path, tokenizer):
    import datasets

    documents = [prose(40, seed) for seed in range(8)]
    for number, text in enumerate(documents):
        write(tmp_path / "set" / f"{number // 4}" / f"{number}.md", text)
    write(tmp_path / "set" / ".hidden.txt", "never read")
    write(tmp_path / "set" / "picture.png", "no text")
    datasets.Dataset.from_dict({"text": documents}).save_to_disk(tmp_path / "saved")
    found = [
        opened(source, tokenizer)
        for source in (
            documents,
            tuple(documents),
            tmp_path / "set",
            rows_of(tmp_path / "x.jsonl", [*documents, "", None]),
            rows_of(tmp_path / "x.parquet", [documents[0], None, *documents[1:]]),
            f"hf:{tmp_path / 'saved'}",
        )
    ]
    for data in found:
        assert data.fingerprint == found[0].fingerprint and (data.tokens[:] == found[0].tokens).all()
        assert (data.tokens == data.tokenizer.end).sum() == data.audit.documents == 8
        assert data.spec.start == data.tokenizer.end
        assert "".join(documents).encode() in put_together(data)


def put_together(data):
    """The bytes of the whole text, from its splits: validation is cut out of the middle of what lies before the test split."""
    train, validation, test = map(data.raw, ("train", "validation", "test"))
    # The cut may lie up to three bytes further on, where a character begins.
    places = range(len(train) // 2 - 4, len(train) // 2 + 5)
    return [train[:at] + validation + train[at:] + test for at in places]


@pytest.mark.parametrize("tokenizer", KINDS)
def test_one_text_is_one_document_without_an_end(tmp_path, tokenizer):
    text = prose()
    alone, file = opened(text, tokenizer), opened(write(tmp_path / "x.anything", text), tokenizer)
    assert alone.fingerprint == file.fingerprint
    assert not (file.tokens == file.tokenizer.end).any() and file.spec.start == file.tokenizer.encode("\n")[0]
    assert text.encode() in put_together(file)


def test_shakespeare_has_the_known_sizes():
    if not os.environ.get("LATENTE_DATA"):
        pytest.skip("LATENTE_DATA names no folder with tinyshakespeare.txt")
    data = opened("shakespeare")
    assert data.characters["train"] + data.characters["validation"] == 1_003_854
    assert data.characters["test"] == 111_540 and data.tokenizer.size == 65 + 2
    assert data.bytes == data.characters == {n: len(data.raw(n)) for n in data.splits}


def test_shakespeare_is_found_in_named_folders_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTE_DATA", os.pathsep.join([str(tmp_path / "none"), str(tmp_path)]))
    with pytest.raises(DataError, match=r"curl -o tinyshakespeare\.txt"):
        opened("shakespeare")
    write(tmp_path / "shakespeare" / "tinyshakespeare.txt", "First Citizen:\n")
    with pytest.raises(DataError, match="not the known Tiny Shakespeare"):
        opened("shakespeare")


def test_pydoc_needs_no_file():
    data = opened("pydoc")
    assert data.audit.documents > 50 and sum(data.characters.values()) > 300_000
    assert not [line for line in data.warnings() if "<|unknown|>" not in line]


def test_kinds_are_told_apart(tmp_path):
    from latente.data.images import picture

    for number in range(3):
        picture(np.zeros((1, 9, 9), np.uint8)).save(tmp_path / f"{number}.png")
    write(tmp_path / "captions.txt", "three")
    rows_of(tmp_path / "x.parquet", ["a"])
    told = {"a\nb": "text", "digits": "image", "pydoc": "text", tmp_path: "image", tmp_path / "captions.txt": "text",
            tmp_path / "0.png": "image", tmp_path / "x.parquet": "text"}  # fmt: skip
    assert {source: kind(source) for source in told} == told
    assert kind(["a", "b"]) == "text" and kind(np.zeros((3, 8, 8))) == "image"
    assert lasting("a\nb") is lasting(["a"]) is None and lasting("pydoc") == "pydoc"
    with pytest.raises(DataError, match="digits is images, not text"):
        opened("digits")
    with pytest.raises(DataError, match="pydoc is text, not images"):
        open_source("pydoc", ImageOptions())


# ---- encodings -----------------------------------------------------------------------------------------------------

LANGUAGES = {
    "cp1252": "Le café était fermé ; déjà vu, naïve “quotes”… voilà Noël. ",
    "cp1251": "Привет, мир! Это обычный русский текст, он достаточно длинный. ",
    "shift_jis": "これは日本語のテキストです。文字コードを判定します。",
    "gb18030": "这是一个中文文本,用来测试编码检测。",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", *LANGUAGES])
def test_encodings_are_found_and_kept(tmp_path, encoding):
    text = "plain ascii first\n" * 10 + LANGUAGES.get(encoding, LANGUAGES["cp1251"]) * 60
    data = opened(write(tmp_path / "x.txt", text, encoding))
    assert text.encode() in put_together(data)
    (found,) = data.audit.encodings
    assert ("guessed" in found) == (encoding in LANGUAGES) == any("--encoding" in line for line in data.warnings())
    assert ("encoding", found) in data.describe()


def test_an_encoding_that_is_named_is_used(tmp_path):
    text = LANGUAGES["cp1251"] * 60
    for encoding in ("koi8-r", "utf-16-le", "utf-8"):
        data = opened(write(tmp_path / "x.txt", text, encoding), encoding=encoding)
        assert text.encode() in put_together(data)
    with pytest.raises(DataError, match="--encoding 'klingon': no such encoding"):
        opened(tmp_path / "x.txt", encoding="klingon")


@pytest.mark.parametrize("place", [0, 1234, 5_000_001])
def test_damaged_utf8_is_named_by_its_byte(tmp_path, place, monkeypatch):
    content = bytearray(("é" * 20 + "\n").encode() * (125_000 if place > 9999 else 100))
    place -= place % 41  # where a character begins
    content[place] = 0xFF
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.txt: byte {place:,} \(from 0\) is damaged UTF-8.*--bad-bytes replace"):
        opened(tmp_path / "x.txt")
    if place < 9999:
        data = opened(tmp_path / "x.txt", bad_bytes="replace")
        assert (
            sum(data.text(split).count("\ufffd") for split in data.splits) == 2
        )  # the bad byte, and the one it left alone


@pytest.mark.parametrize("encoding", ["shift_jis", "utf-16-le", "ascii", "utf-8"])
def test_a_byte_that_an_encoding_lacks_is_named(tmp_path, encoding):
    start = "ascii only ".encode(encoding) * 200
    bad = {"shift_jis": b"\xfd\xfd", "utf-16-le": b"\x00\xdc", "ascii": b"\x80", "utf-8": b"\xc3("}[encoding]
    (tmp_path / "x.txt").write_bytes(start + bad + start)
    with pytest.raises(DataError, match=rf"byte {len(start):,} "):
        opened(tmp_path / "x.txt", encoding=encoding)
    assert "\ufffd" in opened(tmp_path / "x.txt", encoding=encoding, bad_bytes="replace").text("train")


def test_binary_files_are_for_the_byte_tokenizer(tmp_path):
    content = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    (tmp_path / "x.bin").write_bytes(content)
    for tokenizer in ("char", "bpe:300"):
        with pytest.raises(DataError, match=r"is binary .* --tokenizer byte"):
            opened(tmp_path / "x.bin", tokenizer)
    data = opened(tmp_path / "x.bin", "byte")
    assert content in put_together(data)
    data.save_assets(tmp_path / "run")
    assert opened(tmp_path / "x.bin", str(tmp_path / "run")).fingerprint == data.fingerprint


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([".txt", ".jsonl", ".parquet"]), st.sampled_from(["char", "byte", "bpe:300"]))
def test_mangled_files_are_read_or_refused(tmp_path_factory, data, suffix, tokenizer):
    path = tmp_path_factory.mktemp("mangled") / f"x{suffix}"
    text = prose(30)
    if suffix == ".txt":
        write(path, text, data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-7"])))
    else:
        rows_of(path, text.split("\n"))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    encoding = data.draw(
        st.sampled_from(["auto", "auto", "utf-8", "utf-16", "utf-7", "cp1252", "shift_jis", "iso2022_jp", "idna"])
    )
    try:
        opened(path, tokenizer, encoding=encoding, bad_bytes=data.draw(st.sampled_from(["stop", "replace"])))
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 600


# ---- rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row, says",
    [
        ("{oops", r"x\.jsonl, line 41: not JSON"),
        ("[" * 100_000, r"x\.jsonl, line 41: not JSON"),
        ("[1, 2]", "line 41: a row is an object"),
        ('{"id": 3}', "line 41: no text in column 'text'"),
        ('{"text": 3}', "line 41: no text in column 'text'"),
        ('{"text": "\\ud800"}', "line 41 holds half a surrogate pair"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path, row, says):
    path = rows_of(tmp_path / "x.jsonl", [prose(2)] * 40)
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(DataError, match=says) as caught:
        opened(path)
    assert "\n" not in str(caught.value)


def test_columns_are_chosen_or_listed(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [prose(20, seed) for seed in range(5)]
    table = {"title": ["t"] * 5, "body": texts, "n": list(range(5))}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({n: v[i] for n, v in table.items()}) + "\n" for i in range(5)))
    for path in (tmp_path / "x.parquet", tmp_path / "x.jsonl"):
        with pytest.raises(DataError, match="name one with --column: title, body, n"):
            opened(path)
        with pytest.raises(DataError, match="'n'"):
            opened(path, column="n")
        assert opened(path, column="body").fingerprint == opened(texts).fingerprint
    pq.write_table(pa.table({"body": pa.array(texts).dictionary_encode(), "n": range(5)}), tmp_path / "one.parquet")
    assert opened(tmp_path / "one.parquet").fingerprint == opened(texts).fingerprint


def test_an_official_test_set_is_the_test_split(tmp_path):
    import datasets

    parts = {
        name: [prose(30, 10 * k + seed) for seed in range(4)] for k, name in enumerate(("test", "validation", "train"))
    }
    saved = datasets.DatasetDict({name: datasets.Dataset.from_dict({"text": rows}) for name, rows in parts.items()})
    saved.save_to_disk(tmp_path / "saved")
    data = opened(f"hf:{tmp_path / 'saved'}")
    assert data.raw("test").decode() == "".join(parts["test"])
    assert "".join(parts["train"] + parts["validation"] + parts["test"]).encode() in put_together(data)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda p: write(p / "x.txt", ""), "x is empty"),
        (lambda p: write(p / "x.txt", "hello"), "x holds 5 characters: too few to train on; at least 1,000 are needed"),
        (lambda p: write(p / "x.txt", "é" * 5000), "one character over and over"),
        (lambda p: write(p / "x.png", "p") and p, "no text in .*sub-folders are searched"),
        (lambda p: p / "missing", "no file, folder or named source"),
        (lambda p: "~nobody-of-this-name/x.txt", "no file, folder or named source"),
        (lambda p: "x" * 5000, "no file, folder or named source|cannot be read"),
        (lambda p: [], "is empty"),
        (lambda p: 42, "a source of text is a path"),
        (lambda p: ["a", 3], "a source of text is a path"),
        (lambda p: "hf:" + str(p), "cannot be loaded"),
        (lambda p: write(p / "x.jsonl", "\n\n"), "x is empty"),
        (lambda p: write(p / "x.parquet", "PAR1"), "cannot be read as Parquet"),
    ],
)
def test_bad_sources_get_one_clear_line(tmp_path, make, says):
    with pytest.raises(DataError, match=says) as caught:
        opened(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"tokenizer": "word"}, "--tokenizer 'word': char, byte, bpe:4096"),
        ({"tokenizer": "bpe:20"}, "a vocabulary from 300 to 65,536"),
        ({"tokenizer": "bpe:many"}, "a vocabulary from 300 to 65,536"),
        ({"validation": 0.5}, "--validation 0.5"),
        ({"context": 1}, "--context 1"),
        ({"context": 5000}, "too few for a window of --context 5000; at most"),
        ({"bad_bytes": "ignore"}, "--bad-bytes 'ignore'"),
    ],
)
def test_bad_options_get_one_clear_line(options, says):
    with pytest.raises(DataError, match=says):
        opened(prose(), **options)


# ---- tokenizers ----------------------------------------------------------------------------------------------------

TRAINED = {name: Tokenizer.train(name, [prose(seed=1), prose(seed=2)]) for name in KINDS}


def by_library(made, text):
    return made.library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(ANY_TEXT, st.lists(st.sampled_from([*WORDS, " ", "\n", "\r\n", "\u00a0", "\u3000"])).map("".join))
)
def test_the_table_is_the_library(name, text):
    made = TRAINED[name]
    ids = made.encode(text)
    assert ids.tolist() == by_library(made, text) and ids.dtype == np.int64
    assert made.encode(text.encode()).tolist() == ids.tolist()
    if name != "char":
        assert made.decode(ids) == text and b"".join(map(made.bytes_of, ids)) == text.encode()
    else:
        known = "".join(c if c in made.library.get_vocab() else "\ufffd" for c in text)
        assert made.decode(ids) == known == b"".join(map(made.bytes_of, ids)).decode()


def test_bytes_need_not_be_text():
    made, every = TRAINED["byte"], bytes(range(256))
    assert made.encode(every).tolist() == list(range(256)) and b"".join(map(made.bytes_of, range(256))) == every
    assert (made.size, made.end, made.unknown, made.bytes_of(256)) == (257, 256, None, b"")


@pytest.mark.parametrize("name", KINDS)
def test_transformers_loads_what_is_saved(tmp_path, name):
    import transformers

    made, text = TRAINED[name], prose(50, 1) + "<|end|> \r\n\t x"
    made.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text, add_special_tokens=False)["input_ids"] == made.encode(text).tolist()
    assert theirs.decode(made.encode(prose(50, 1))) == prose(50, 1)
    assert theirs.eos_token_id == made.end
    again = Tokenizer.load(tmp_path)
    assert (again.digest(), again.kind, again.size, again.dtype) == (made.digest(), made.kind, made.size, made.dtype)
    assert again.encode(text).tolist() == made.encode(text).tolist()


@pytest.mark.parametrize("name", KINDS)
def test_a_text_cannot_spell_the_end(name):
    made = TRAINED[name]
    assert made.end not in made.encode("a<|end|>b <|unknown|>")
    data = opened([prose(40, 1) + "<|end|>", prose(40, 2)], name)
    assert (data.tokens == data.tokenizer.end).sum() == 2
    assert b"".join(map(data.raw, data.splits)).decode().count("<|end|>") == 1


def test_training_twice_gives_the_same_tokenizer():
    for name, made in TRAINED.items():
        assert Tokenizer.train(name, [prose(seed=1).encode(), prose(seed=2)]).digest() == made.digest()
    assert 300 < TRAINED["bpe:400"].size <= 400


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*WORDS, " ", "  ", "\n", "\r\n", "\u00a0", "\u2028", "\u3000", "'s", "\x1f", "\x85"])))
def test_cuts_change_nothing(parts):
    text = "".join(parts)
    made = TRAINED["bpe:400"]
    from latente.data import tokenizer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_PIECE", 5)
        cut = list(pieces(text.encode()))
        assert b"".join(cut) == text.encode() and all(len(piece) for piece in cut)
        assert made.encode(text).tolist() == by_library(made, text)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("source", [prose(), [prose(20, seed) for seed in range(9)], ["ab", "cd\u00a0", " e"] * 500])
def test_blocks_change_nothing(name, source, monkeypatch):
    whole = opened(source, name)
    monkeypatch.setattr(tokenizing, "BLOCK", 100)
    assert opened(source, name).fingerprint == whole.fingerprint


def test_a_text_without_white_space_is_cut_between_characters(monkeypatch):
    monkeypatch.setattr(tokenizing, "_UNBROKEN", 500)
    monkeypatch.setattr(tokenizing, "BLOCK", 400)
    text = prose(100).replace(" ", "").replace("\n", "").replace("\t", "") + "\n"
    data = opened(text, "bpe:300")
    assert text.encode() in put_together(data)


def test_merges_come_from_a_sample_spread_over_a_long_text(monkeypatch):
    text = prose(300, words=["alpha"]) + prose(300, words=["omega"]) + prose(60)
    monkeypatch.setattr(tokenizing, "BLOCK", 400)
    monkeypatch.setattr(tokenizing, "_SAMPLE", len(text) // 4)
    data = opened(text, "bpe:300")
    assert {b" alpha", b" omega"} <= set(map(data.tokenizer.bytes_of, range(data.tokenizer.size)))
    assert text.encode() in put_together(data)


def own(path, **changes):
    """A word-level tokenizer of the user's own, lower-casing."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, normalizers, pre_tokenizers

    words = {word: n for n, word in enumerate(["[UNK]", *sorted({w.lower() for w in WORDS}), *changes.get("more", [])])}
    made = Library(models.WordLevel(words, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    made.enable_truncation(5)
    made.save(str(path))
    return path


def test_a_tokenizer_of_the_users_own(tmp_path):
    text = prose(600)
    data = opened(text, str(own(tmp_path / "own.json")))
    assert data.tokenizer.kind == "own" and data.tokenizer.end is None and data.tokenizer.unknown == 0
    assert len(data.tokens) > 3000 and data.tokenizer.cuttable  # truncation is not of the text
    twice = opened([text, text], str(tmp_path / "own.json"))
    assert abs(len(twice.tokens) - 2 * len(data.tokens)) <= 4  # a split may begin inside a word
    ended = opened([text, text], str(own(tmp_path / "ended.json", more=["</s>"])))
    assert (ended.tokens == ended.tokenizer.end).sum() == 2
    for content in ("{}", "no json", '{"model": 3}'):
        write(tmp_path / "bad.json", content)
        with pytest.raises(DataError, match="is no tokenizer"):
            opened(text, str(tmp_path / "bad.json"))
    with pytest.raises(DataError, match="cannot be read"):
        opened(text, str(tmp_path))


def test_streams_of_a_foreign_decoder_add_up(tmp_path):
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    made = Library(models.Unigram([("<unk>", 0.0), ("▁the", -1.0), ("▁", -2.0), ("cat", -2.0), ("s", -3.0)], 0))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.save(str(tmp_path / "own.json"))
    found = Tokenizer.load(tmp_path / "own.json")
    assert not found.cuttable and found.unknown == 0
    ids = found.encode("the cats")
    assert found.decode(ids) == "the cats" and b"".join(map(found.bytes_of, ids)) == b" the cats"


# ---- splits, windows, cache ----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1000, 6000), st.floats(0.01, 0.49), st.integers(0, 9), st.sampled_from(KINDS))
def test_splits_share_nothing_and_cover_all(length, validation, seed, name):
    text = (prose(200, seed) + "\n")[:length] + "\n"
    try:
        data = opened(text, name, validation=validation)
    except DataError as error:
        assert "too few for a window" in str(error)
        return
    a, b, c = data.ranges.values()
    assert (a[0], a[1], b[1], c[1]) == (0, b[0], c[0], len(data.tokens))
    parts = {split: data.raw(split).decode() for split in data.splits}
    if name != "char" or not sum(data.audit.unknown.values()):
        assert text.encode() in put_together(data)
    assert {split: len(part) for split, part in parts.items()} == data.characters
    assert sum(data.bytes.values()) == len(text.encode())
    for split, starts in data.splits.items():
        first, last = data.ranges[split]
        assert (
            starts[0] == first and starts[-1] + data.spec.context + 1 <= last < starts[-1] + 2 * data.spec.context + 1
        )


def test_characters_never_seen_in_training_are_counted():
    data = opened(prose(300, words=["plain", "words"]) + "\n" + "ж" * 70 + "\n")
    assert data.audit.unknown == {"train": 0, "validation": 0, "test": 70}
    assert data.raw("test").decode().count("\ufffd") == 70 and any("70 held-out" in line for line in data.warnings())
    assert dict(data.describe())["never seen in training"].endswith("test 70")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 40), st.integers(0, 99), st.integers(2, 40))
def test_every_epoch_has_as_many_windows_inside_the_split(seed, epoch, context):
    data = opened(prose(60), context=context)
    starts = data.order(seed, epoch)
    first, last = data.ranges["train"]
    assert len(starts) == len(data.splits["train"]) and len(set(starts)) == len(starts)
    assert starts.min() >= first and starts.max() + context + 1 <= last
    assert (data.order(seed, epoch) == starts).all()
    batch = data.batch(starts[:7])["tokens"].numpy()
    assert (batch == [data.tokens[s : s + context + 1] for s in starts[:7]]).all()


def test_epochs_differ_in_offset_and_order():
    data = opened(prose())
    orders = [data.order(0, epoch) for epoch in range(8)]
    assert len({order.min() for order in orders}) > 5 and len({tuple(order) for order in orders}) == 8
    assert data.batch(orders[0][:3])["tokens"].shape == (3, data.spec.context + 1)


def test_short_texts_get_short_windows():
    assert opened(prose(4000)).spec.context == 256
    assert 8 <= opened(prose(40)).spec.context < 60


def test_the_second_start_encodes_nothing(tmp_path, monkeypatch):
    path = write(tmp_path / "x.txt", prose())
    first = {name: opened(path, name) for name in KINDS}
    monkeypatch.setattr(tokenizing, "collect", None)
    monkeypatch.setattr(text_sources, "charset_of", None)
    for name, data in first.items():
        again = opened(path, name, context=32)
        assert again.fingerprint == data.fingerprint and again.describe()[:6] == data.describe()[:6]
        assert isinstance(again.tokens, np.memmap) and again.spec.context == 32
    path.write_text(prose(seed=5))
    with pytest.raises(TypeError):
        opened(path)


@pytest.mark.parametrize("name", KINDS)
def test_a_run_opens_its_source_with_the_tokenizer_it_kept(tmp_path, name):
    source = [prose(30, seed) for seed in range(5)]
    data = opened(source, name)
    data.save_assets(tmp_path / "data")
    again = opened(source, str(tmp_path / "data"))
    assert again.fingerprint == data.fingerprint and again.spec == data.spec
    assert opened([*source, "x"], str(tmp_path / "data")).fingerprint != data.fingerprint


def test_damaged_or_forbidden_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTE_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "x.txt", prose(), "utf-16")
    first = opened(path)
    (entry,) = (tmp_path / "cache").iterdir()
    assert sorted(p.name for p in entry.iterdir()) == [
        "record.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokens.bin",
    ]
    for name, content in (("tokens.bin", b"short"), ("record.json", b"{}"), ("tokenizer.json", b"")):
        (entry / name).unlink()
        (entry / name).write_bytes(content)
        assert opened(path).fingerprint == first.fingerprint
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [entry.name]
    with pytest.raises(DataError):
        opened(write(tmp_path / "y.txt", "short"))
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [entry.name]  # nothing half-written is left
    monkeypatch.setenv("LATENTE_CACHE", str(path / "no"))
    with pytest.raises(DataError, match="LATENTE_CACHE"):
        opened(path)


def test_progress_counts_bytes(tmp_path):
    path = write(tmp_path / "x.txt", prose())
    told = []
    open_source(path, TextOptions("bpe:300"), lambda *line: told.append(line))
    size = path.stat().st_size
    assert ("encoding", size, size) in told and all(done <= total for _, done, total in told)


def test_what_is_wrong_is_said():
    short = opened([prose(4, 1)] * 20 + [prose(40).replace("\n", "\r\n")])
    said = " ".join(short.warnings())
    assert "a model will mostly copy" in said and "19 of 21 documents occurred before" in said and r"\r\n" in said
    assert "\n" not in said + "".join(value for _, value in short.describe())
    assert not opened(prose(3000)).warnings()


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_data_command_shows_a_text(tmp_path, capsys):
    from latente.cli import main

    path = str(write(tmp_path / "x.txt", prose() + "[bold]"))
    assert main(["data", path, "--tokenizer", "bpe:300", "--context", "16"]) == 0
    shown = capsys.readouterr().out
    assert "16 tokens a window" in shown and "byte-level BPE" in shown and "contact sheet" not in shown
    for flags, says in ((["--image-size", "8"], "--image-size is for image sources"), (["--column", "n"], "")):
        assert main(["data", path, *flags]) == (2 if says else 0)
        assert says in capsys.readouterr().err


def test_no_option_has_the_name_of_another_flag():
    from latente.commands.training import Train
    from latente.config import Recipe
    from latente.flags import flags

    flags(Train, Recipe, ImageOptions, TextOptions)
