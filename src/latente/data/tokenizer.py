"""From text to token ids and back: characters, bytes, words, byte-level BPE, or any tokenizer.json of the user's own.

Every tokenizer is one of the `tokenizers` library and is written so that `transformers.AutoTokenizer` loads it. Characters
and bytes are encoded by a look-up table instead, which gives the same ids many times faster.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from latente.data.errors import DataError, first_line

END, UNKNOWN = "<|end|>", "<|unknown|>"
# What other tokenizers call the end of a document.
_ENDS = (END, "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
_FEWEST, _MOST = 300, 65_536
_PIECE = 1 << 14
_TEXTS = 1 << 16  # short texts handed to the library at once
# The trainer's time grows with the square of a word's length, and its memory with the number of different words.
_WORD, _ENDLESS = 1 << 10, 1 << 21
_UNTOLD = b"\xef\xbf\xbd"
# Just before an ASCII space, tab or line end that follows no other white space. There, byte-level BPE starts a new word, and
# no rule looks back across; the look-behinds are the white space of Unicode, in UTF-8.
_CUT = re.compile(
    rb"(?=[ \t\n\r])(?<![\x00-\x20\x7f])(?<!\xc2\x85)(?<!\xc2\xa0)(?<!\xe1\x9a\x80)"
    rb"(?<!\xe2\x80[\x80-\x8a\xa8\xa9\xaf])(?<!\xe2\x81\x9f)(?<!\xe3\x80\x80)"
)
_PROBES = ("one two", "one\ntwo", "one\ttwo", "Élan, 42\r\n  times")


class Tokenizer:
    """A tokenizer; `json` is the text of its tokenizer.json, which alone decides what it does."""

    def __init__(self, text: str) -> None:
        from tokenizers import Tokenizer as Library

        self.json = text
        self.library = Library.from_str(text)
        self.library.no_truncation()
        self.library.no_padding()
        # A text that spells a special token is text: what it spells is encoded like any other characters.
        self.library.encode_special_tokens = True
        content, vocabulary = json.loads(text), self.library.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values(), default=-1) + 1
        """V: ids go from 0 to V - 1"""
        self.kind = _kind(content)
        """"char", "byte", "word" (between white space), "bpe" (byte-level), or "own" for any other"""
        self.end: int | None = next((vocabulary[name] for name in _ENDS if name in vocabulary), None)
        """the id that ends a document"""
        model = content["model"]
        self.unknown: int | None = vocabulary.get(model.get("unk_token"), model.get("unk_id"))
        """the id of what the vocabulary lacks"""
        self.dtype = np.dtype(np.uint8 if self.size <= 1 << 8 else np.uint16 if self.size <= 1 << 16 else np.uint32)
        """the smallest that holds every id"""
        self._bytes = _meanings(self, content, vocabulary)
        self._table = _table(self, vocabulary) if self.kind == "char" else None
        self.cuttable = self.kind != "own" or all(map(self._cuts_alike, _PROBES))
        """whether a text may be cut before white space that follows none, and encoded piece by piece"""

    @classmethod
    def train(cls, kind: str, chunks: Iterable[str | bytes]) -> Tokenizer:
        """A tokenizer of `kind` ("char", "byte", "word", "bpe:4096") for a text given in chunks. Raises DataError for other kinds.

        A word that two chunks share is two.
        """
        kind = check_kind(kind, words=True)
        if kind == "char":
            return cls(_char(_alphabet(map(_utf8, chunks))))
        if kind == "byte":
            return cls(_byte())
        if kind == "word":
            return cls(_word(_vocabulary(chunks)))
        return cls(_bpe(int(kind.removeprefix("bpe:")), map(_utf8, chunks)))

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """A tokenizer.json, or the one in a folder. Raises DataError when it cannot be read."""
        path = Path(path).expanduser()
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            return cls(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"--tokenizer {path}: {file} cannot be read: {error.strerror}") from None
        except Exception as error:  # the library raises bare Exception for what is no tokenizer
            raise DataError(f"--tokenizer {path}: {file} is no tokenizer: {first_line(error)}") from None

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which `AutoTokenizer.from_pretrained(folder)` reads."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "split_special_tokens": True,
        }  # fmt: skip
        for name, token in (("eos_token", self.end), ("unk_token", self.unknown)):
            if token is not None:
                config[name] = self.library.id_to_token(token)
        (folder / "tokenizer.json").write_text(self.json, encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")

    def digest(self) -> str:
        """A hash of tokenizer.json: equal for tokenizers that do the same."""
        return hashlib.blake2b(self.json.encode(), digest_size=16).hexdigest()

    def encode(self, text: str | bytes) -> np.ndarray:
        """The ids of a text, (N,) int64, without an end token. Bytes are taken as UTF-8, except by the byte tokenizer."""
        return self.encode_documents(_utf8(text), np.empty(0, np.int64)).astype(np.int64)

    def encode_documents(self, data: bytes, ends: np.ndarray) -> np.ndarray:
        """The ids of UTF-8 bytes, (N,) of `dtype`; after each offset in `ends` a document ends, and the end token follows."""
        if self.kind not in ("char", "byte"):
            return self._by_library(data, ends)
        if self.kind == "byte":
            ids, places = np.frombuffer(data, np.uint8).astype(self.dtype), ends
        else:
            ids, places = self._by_table(data, ends)
        return ids if self.end is None or not len(ends) else np.insert(ids, places, self.end)

    def encode_each(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts one after another, (N,) of `dtype`, without end tokens, and how many are of each, int64."""
        if self.kind in ("char", "byte"):
            size = len if self.kind == "char" else lambda text: len(_utf8(text))
            ids = self.encode_documents(_utf8("".join(texts)), np.empty(0, np.int64))
            return ids, np.fromiter(map(size, texts), np.int64, len(texts))
        parts, sizes = [np.empty(0, self.dtype)], np.zeros(len(texts), np.int64)
        for start in range(0, len(texts), _TEXTS):
            found = self.library.encode_batch_fast(list(texts[start : start + _TEXTS]), add_special_tokens=False)
            sizes[start : start + len(found)] = [len(one.ids) for one in found]
            parts.append(np.fromiter(chain.from_iterable(one.ids for one in found), self.dtype))
        return np.concatenate(parts), sizes

    def _by_table(self, data: bytes, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self._table is not None
        if data.isascii():
            return self._table[np.frombuffer(data, np.uint8)], ends
        text = data.decode("utf-8", "replace")
        starts = (np.frombuffer(data, np.uint8) & 0xC0) != 0x80  # of characters; the other bytes go on with one
        places = np.cumsum(starts)[ends - 1] if len(ends) else ends
        return self._table[np.frombuffer(text.encode("utf-32-le"), "<u4")], places

    def _by_library(self, data: bytes, ends: np.ndarray) -> np.ndarray:
        pieces: list[str] = []
        closing: set[int] = set()
        for start, stop in zip([0, *ends.tolist()], [*ends.tolist(), len(data)]):
            pieces += [piece.decode("utf-8", "replace") for piece in self._pieces(data[start:stop])]
            closing.add(len(pieces) - 1)
        if not len(ends) or ends[-1] < len(data):
            closing.discard(len(pieces) - 1)  # the last document goes on behind these bytes
        parts = []
        for number, found in enumerate(self.library.encode_batch_fast(pieces, add_special_tokens=False)):
            parts.append(np.asarray(found.ids, self.dtype))
            if number in closing and self.end is not None:
                parts.append(np.asarray([self.end], self.dtype))
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        return pieces(data) if self.cuttable else iter([data] if data else [])

    def _cuts_alike(self, probe: str) -> bool:
        place = cut(probe.encode(), 1, len(probe.encode()))
        ids = [self.library.encode(part.decode(), add_special_tokens=False).ids
               for part in (probe.encode(), probe.encode()[:place], probe.encode()[place:])]  # fmt: skip
        return ids[0] == ids[1] + ids[2]

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of ids; the end token is none, an unknown one and bytes that are not UTF-8 are U+FFFD."""
        numbers = np.asarray(ids).reshape(-1).tolist()
        if self.kind == "own":
            return self.library.decode(numbers, skip_special_tokens=True)
        if self.kind == "word":
            return " ".join(self._bytes[number].decode() for number in numbers)
        return b"".join(map(self._bytes.__getitem__, numbers)).decode("utf-8", "replace")

    def bytes_of(self, token: int) -> bytes:
        """What one token stands for, so that a stream can be decoded as it comes; b"" for the end token."""
        return self._bytes[token]


def check_kind(kind: str, words: bool = False) -> str:
    """`kind` in one spelling: "char", "byte", "bpe:N", and "word" where `words` may be. Raises DataError for any other."""
    word, _, number = kind.lower().partition(":")
    if word in ("char", "byte", *["word"] * words) and not number:
        return word
    if word != "bpe":
        names = "char, byte, word" if words else "char, byte"
        raise DataError(f"--tokenizer {kind!r}: {names}, bpe:4096, or the path of a tokenizer.json")
    if not (number.isascii() and number.isdigit() and _FEWEST <= int(number) <= _MOST):
        raise DataError(f"--tokenizer {kind!r}: a vocabulary from {_FEWEST} to {_MOST:,}, as bpe:4096")
    return f"bpe:{int(number)}"


def cut(data: Any, start: int, limit: int) -> int:
    """The first offset in start..limit-1 where cutting UTF-8 changes no token; else `limit`."""
    found = _CUT.search(data, start, limit)
    return limit if found is None else found.start()


def pieces(data: bytes) -> Iterator[bytes]:
    """`data` in pieces of about 16 KiB, cut where it changes no token: the library works on many of them at once."""
    start = 0
    while start < len(data):
        stop = cut(data, start + _PIECE, len(data)) if start + _PIECE < len(data) else len(data)
        yield data[start:stop]
        start = stop


def _utf8(text: str | bytes) -> bytes:
    return text.encode("utf-8", "replace") if isinstance(text, str) else text


# ---- making them ---------------------------------------------------------------------------------------------------


def _alphabet(chunks: Iterable[bytes]) -> list[str]:
    seen = np.zeros(0x110000, bool)
    for chunk in chunks:
        points = np.frombuffer(chunk, np.uint8) if chunk.isascii() else _points(chunk.decode("utf-8", "replace"))
        seen[points] = True
    return [chr(point) for point in np.flatnonzero(seen)]


def _points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _char(alphabet: list[str]) -> str:
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    vocabulary = {token: number for number, token in enumerate([UNKNOWN, END, *alphabet])}
    made: Any = Library(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens([UNKNOWN, END])
    return made.to_str()


def _vocabulary(chunks: Iterable[str | bytes]) -> list[str]:
    """The words of a text, the frequent ones first, at most `_MOST`."""
    counts = Counter(chain.from_iterable(_utf8(chunk).decode("utf-8", "replace").split() for chunk in chunks))
    return sorted(counts.keys() - {UNKNOWN}, key=lambda word: (-counts[word], word))[: _MOST - 1]


def _word(words: list[str]) -> str:
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers

    # No token for the end: a text may have a word of that name.
    vocabulary = {token: number for number, token in enumerate([UNKNOWN, *words])}
    made: Any = Library(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([UNKNOWN])
    return made.to_str()


def _byte() -> str:
    from tokenizers import Tokenizer as Library
    from tokenizers import models

    made: Any = Library(models.BPE({letter: byte for letter, byte in _bytes_of_letters().items()}, []))
    return _byte_level(made, words=False)


def _bpe(size: int, chunks: Iterable[bytes]) -> str:
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    made: Any = Library(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=sorted(_bytes_of_letters()), show_progress=False,
        min_frequency=2,
    )  # fmt: skip
    made.train_from_iterator(_words(chunks), trainer)
    return _byte_level(made, words=True)


def _words(chunks: Iterable[bytes]) -> Iterator[str]:
    """Text for the trainer, which keeps every different word: of a text without white space, pieces, and not many of them."""
    endless = 0
    for data in chunks:
        start = 0
        while start < len(data):
            stop = cut(data, start + _WORD, start + 2 * _WORD) if start + _WORD < len(data) else len(data)
            while stop < len(data) and data[stop] & 0xC0 == 0x80:  # inside a character
                stop += 1
            endless += stop - start if stop >= start + 2 * _WORD else 0
            if endless <= _ENDLESS or stop < start + 2 * _WORD:
                yield data[start:stop].decode("utf-8", "replace")
            start = stop


def _byte_level(made: Any, words: bool) -> str:
    from tokenizers import decoders, pre_tokenizers

    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END])
    return made.to_str()


def _bytes_of_letters() -> dict[str, int]:
    """The letter that stands for each byte in a byte-level vocabulary (GPT-2's): itself where it can be seen, else one from 256."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(256 + hidden.index(byte)) if byte in hidden else chr(byte): byte for byte in range(256)}


# ---- reading them --------------------------------------------------------------------------------------------------


def _kind(content: dict[str, Any]) -> str:
    model, before, after = content["model"], content["pre_tokenizer"] or {}, content["decoder"] or {}
    added = {token["content"] for token in content["added_tokens"]}
    if content["normalizer"] is not None:
        return "own"
    if (model["type"], before.get("type"), after.get("type")) == ("WordLevel", "WhitespaceSplit", None):
        return "word" if added == {UNKNOWN} else "own"
    if (model["type"], before.get("type"), after.get("type")) == ("WordLevel", "Split", "Fuse"):
        single = all(len(token) == 1 for token in model["vocab"] if token not in added)
        return "char" if single and before["pattern"] == {"Regex": r"[\s\S]"} and added == {UNKNOWN, END} else "own"
    if (model["type"], before.get("type"), after.get("type")) != ("BPE", "ByteLevel", "ByteLevel"):
        return "own"
    if not before["use_regex"]:
        plain = (
            not model["merges"] and {t: i for t, i in model["vocab"].items() if t not in added} == _bytes_of_letters()
        )
        return "byte" if plain else "own"
    return "bpe" if not before["add_prefix_space"] else "own"


def _table(made: Tokenizer, vocabulary: dict[str, int]) -> np.ndarray:
    """(0x110000,): the id of every code point."""
    table = np.full(0x110000, made.unknown, made.dtype)
    singles = {ord(token): number for token, number in vocabulary.items() if len(token) == 1}
    table[list(singles)] = list(singles.values())
    return table


def _meanings(made: Tokenizer, content: dict[str, Any], vocabulary: dict[str, int]) -> list[bytes]:
    """The bytes of every id."""
    special = {token["id"] for token in content["added_tokens"] if token["special"]}
    letters = _bytes_of_letters()
    found = [b""] * made.size
    for token, number in vocabulary.items():
        if number == made.unknown:
            found[number] = _UNTOLD
        elif number in special or number == made.end:
            continue
        elif made.kind in ("byte", "bpe") and all(letter in letters for letter in token):
            found[number] = bytes(letters[letter] for letter in token)
        elif made.kind == "own":
            found[number] = _inside(made.library, number, token)
        else:
            found[number] = token.encode()
    return found


def _inside(library: Any, number: int, token: str) -> bytes:
    """What a token adds behind another one: at the start of a text, many decoders leave a space out."""
    if re.fullmatch("<0x[0-9A-F]{2}>", token):  # how SentencePiece spells a byte
        return bytes([int(token[3:5], 16)])
    alone, twice = library.decode([number]), library.decode([number, number])
    return (twice[len(alone) :] if twice.startswith(alone) else alone).encode()
