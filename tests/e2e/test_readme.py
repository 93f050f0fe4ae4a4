"""The README's recipes, run as written (the two make commands excepted: they are what runs this)."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def recipe(title):
    """The commands of the recipe that begins with `title`: its indented lines or its Python block."""
    after = TEXT.split(f"**{title}", 1)[1]
    block = re.search(r"((?:^    [^\n]+\n)+)|```python\n(.*?)```", after, re.M | re.S)
    assert block is not None
    if block[2]:
        return [[sys.executable, "-c", block[2]]]
    return [
        [str(Path(sys.executable).parent / "latente"), *shlex.split(line, comments=True)[1:]]
        for line in block[1].strip().split("\n")
    ]


def follow(title, folder):
    for words in recipe(title):
        ended = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": ""}
        )
        assert ended.returncode == 0, (words, ended.stderr)


def pictures_in(folder):
    """A folder of digits, one sub-folder a class; gives it."""
    from latente.data.images import write_images

    digits = load_digits()
    pictures = (digits.images[:, None] * 15.9).astype("uint8")
    return write_images(folder / "my-pictures", pictures, digits.target, [str(n) for n in range(10)])


def test_a_folder_of_pictures(tmp_path):
    pictures_in(tmp_path)
    follow("A folder of pictures", tmp_path)
    assert sum(1 for _ in (tmp_path / "made").rglob("*.png")) == 1000


def test_the_same_pictures_in_fewer_bytes(tmp_path):
    before = pictures_in(tmp_path)
    follow("The same pictures in fewer bytes", tmp_path)
    pixels = {
        folder: {f.relative_to(folder): np.asarray(Image.open(f)) for f in folder.rglob("*.png")}
        for folder in (before, tmp_path / "pictures-again")
    }
    was, again = pixels.values()
    assert len(was) == 1797 and sorted(was) == sorted(again) and all((was[name] == again[name]).all() for name in was)
    raw = sum(image.size for image in was.values())
    assert (tmp_path / "set.latente").stat().st_size < raw / 2 > (tmp_path / "small.latente").stat().st_size


def test_fashion_mnist(tmp_path):
    from latente.data.errors import DataError
    from latente.data.named import fashion_mnist

    try:
        fashion_mnist()
    except DataError as error:
        pytest.skip(str(error))
    follow("Fashion-MNIST", tmp_path)
    assert (tmp_path / "latent-space.png").stat().st_size > 10_000


def test_your_own_text(tmp_path):
    from pydoc_data.topics import topics

    (tmp_path / "my-text.txt").write_text("\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    follow("Your own text", tmp_path)
    assert (tmp_path / "my-writer" / "weights.safetensors").exists()


def test_your_own_table(tmp_path):
    from sklearn.datasets import load_diabetes

    load_diabetes(as_frame=True, scaled=False).frame.to_csv(tmp_path / "my-table.csv", index=False)
    follow("Your own table", tmp_path)
    assert (tmp_path / "made.csv").read_text().count("\n") == 1001


def test_pairs_of_texts(tmp_path):
    from latente.data.named import roman

    (tmp_path / "my-pairs.tsv").write_text("".join(f"{number}\t{numeral}\n" for number, numeral in roman()))
    (tmp_path / "my-lines.txt").write_text("7\n49\n")
    follow("Pairs of texts", tmp_path)
    assert (tmp_path / "made.txt").read_text().count("\n") == 2


def test_python(tmp_path):
    follow("Python", tmp_path)
    assert (tmp_path / "digits-run" / "weights.safetensors").exists()


def test_what_the_readme_names_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (README.parent / target).exists(), target
