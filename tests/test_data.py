"""The data room: whatever people have, read right or refused in one clear line."""

import gzip
import io
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from latente.data.dataset import ImageOptions
from latente.data.decoding import content_hashes
from latente.data.errors import DataError
from latente.data.images import contact_sheet, picture, pixels, write_images
from latente.data.sources import open_source
from latente.rng import keyed, permutation
from latente.spec import ImageSpec


def images(n=40, side=12, channels=1, seed=0):
    return ImageSpec(channels, side, side).example(n, keyed(seed))["x"].numpy()


def folder_of(path, x, suffix=".png", classes=()):
    for number, image in enumerate(x):
        target = path / (classes[number % len(classes)] if classes else "") / f"{number:03d}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        picture(image).save(target, **({"quality": 95} if suffix == ".jpg" else {}))
    return path


# ---- what people have ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".bmp", ".tiff"])
def test_a_folder_of_every_kind(tmp_path, suffix):
    x = images()
    data = open_source(folder_of(tmp_path / "set", x, suffix))
    assert data.spec.shape == ((3 if suffix == ".webp" else 1), 12, 12)  # WebP knows no grey
    assert len(data.items) == 40
    close = np.abs(data.images[data.items].astype(int) - x).mean()
    assert close == 0 if suffix in (".png", ".gif", ".bmp", ".tiff") else close < 6


def test_sub_folders_are_classes_and_nested_ones_belong_to_them(tmp_path):
    folder_of(tmp_path / "set", images(), classes=("cat/a", "cat/b", "dog"))
    data = open_source(tmp_path / "set")
    assert data.spec.classes == ("cat", "dog")
    assert open_source(tmp_path / "set", ImageOptions(labels=False)).spec.classes == ()


def test_a_test_folder_is_the_test_split(tmp_path):
    x = images(60)
    folder_of(tmp_path / "set" / "train", x[:40], classes=("a", "b"))
    folder_of(tmp_path / "set" / "test", x[30:], classes=("a", "b"))
    data = open_source(tmp_path / "set")
    assert data.spec.classes == ("a", "b")
    assert len(data.splits["test"]) == 30
    assert data.audit.leaks == 10  # training images that the test set holds too


def test_arrays_of_every_layout_and_number_kind(tmp_path):
    x = images(channels=3)
    last = x.transpose(0, 2, 3, 1)
    for given_as in (x, last, (last / 255).astype(np.float32), (last.astype(np.uint16) * 257), last / 127.5 - 1):
        data = open_source(given_as)
        assert np.abs(data.images.astype(int) - x).max() <= 1
    np.save(tmp_path / "grey.npy", images()[:, 0])
    np.savez(
        tmp_path / "set.npz", x_train=last[:30], y_train=np.arange(30) % 3, x_test=last[30:], y_test=np.arange(10) % 3
    )
    assert open_source(tmp_path / "grey.npy").spec.shape == (1, 12, 12)
    held = open_source(tmp_path / "set.npz")
    assert held.spec.classes == ("0", "1", "2") and len(held.splits["test"]) == 10


def test_a_uint8_npy_is_used_in_place(tmp_path):
    np.save(tmp_path / "x.npy", images()[:, 0])
    data = open_source(tmp_path / "x.npy")
    assert isinstance(data.images.base, np.memmap) or isinstance(data.images, np.memmap)


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, packed):
    x = images()[:, 0]
    labels = (np.arange(40) % 2).astype(np.uint8)
    for kind, array in (("images-idx3", x), ("labels-idx1", labels)):
        content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        name = f"train-{kind}-ubyte" + (".gz" if packed else "")
        (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    data = open_source(tmp_path)
    assert (data.images[:, 0] == x).all() and data.spec.classes == ("0", "1")
    assert (data.labels == labels).all()


def test_a_hub_data_set_saved_locally(tmp_path):
    import datasets

    x = images()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = {"image": [picture(image) for image in x], "label": [i % 2 for i in range(40)]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    data = open_source(f"hf:{tmp_path / 'saved'}")
    assert data.spec.classes == ("no", "yes") and (data.images == x).all()


@pytest.mark.parametrize("kind", ["folder", ".npy", ".npz", ".parquet"])
def test_what_is_written_is_read_back(tmp_path, kind):
    x, labels, classes = images(channels=3), np.arange(40) % 2, ("a", "b")
    out = write_images(tmp_path / ("out" if kind == "folder" else f"out{kind}"), x, labels, classes)
    data = open_source(out)
    order = np.argsort(data.labels[data.items], kind="stable") if data.labels is not None else data.items
    want = x if data.labels is None else x[np.argsort(labels, kind="stable")]
    assert (data.images[data.items][order] == want).all()
    assert len(data.spec.classes) == (0 if kind == ".npy" else 2)
    with pytest.raises(DataError, match="exists already"):
        write_images(out, x)


# ---- the one rule --------------------------------------------------------------------------------------------------


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparency_lies_on_white():
    clear = encoded(Image.new("RGBA", (9, 9), (10, 20, 30, 0)))
    assert (pixels(clear, 3, 9, 9) == 255).all()
    palette = Image.new("P", (9, 9), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert (pixels(encoded(palette), 3, 9, 9)[:, 0, 0] == (200, 100, 50)).all()
    assert (pixels(encoded(palette, transparency=1), 1, 9, 9) == 255).all()


def test_sixteen_bits_and_floats_become_eight():
    deep = Image.fromarray(np.linspace(0, 65535, 81).astype(np.uint16).reshape(9, 9))
    want = np.linspace(0, 255, 81).reshape(9, 9)
    assert np.abs(pixels(encoded(deep), 1, 9, 9)[0] - want).max() <= 1
    floating = Image.fromarray(np.linspace(0, 1, 81).astype(np.float32).reshape(9, 9))
    assert np.abs(pixels(encoded(floating, "TIFF"), 1, 9, 9)[0] - want).max() <= 1


def test_exif_turns_the_picture_upright(tmp_path):
    image = Image.new("L", (20, 12))
    image.paste(255, (0, 0, 10, 12))  # bright left half
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    content = encoded(image, "JPEG", exif=exif, quality=100)
    upright = pixels(content, 1, 20, 12)[0]
    assert upright[:8].mean() > 240 and upright[12:].mean() < 15
    for n in range(12):
        (tmp_path / f"{n}.jpg").write_bytes(encoded(image.rotate(n), "JPEG", exif=exif, quality=100))
    assert open_source(tmp_path).spec.shape == (1, 20, 12)


def test_the_centre_is_cropped_and_shrinking_is_smooth():
    wide = Image.new("L", (300, 100), 0)
    wide.paste(255, (100, 0, 200, 100))
    assert (pixels(encoded(wide), 1, 10, 10) > 230).all()  # the filter rings a little at the edge
    checks = Image.fromarray((np.indices((100, 100)).sum(0) % 2 * 255).astype(np.uint8))
    assert np.abs(pixels(encoded(checks), 1, 10, 10).astype(int) - 127).max() < 30


def test_mixed_sizes_get_one_and_options_choose_another(tmp_path):
    for n in range(12):
        picture(images(1, 20 + n, seed=n)[0]).save(tmp_path / f"{n}.png")
    assert open_source(tmp_path).spec.shape == (1, 64, 64)
    assert open_source(tmp_path, ImageOptions("16x24", "rgb")).spec.shape == (3, 16, 24)


# ---- splits and cache ----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=40, max_size=200), st.randoms())
def test_equal_images_are_never_on_two_sides(picks, shuffler):
    base = np.random.default_rng(0).integers(0, 256, (31, 8, 8), np.uint8)
    x = base[[*range(31), *picks]]
    splits = open_source(x).splits
    sides = {name: {x[i].tobytes() for i in part} for name, part in splits.items()}
    assert sum(map(len, splits.values())) == len(x)
    assert not (
        sides["train"] & sides["validation"] or sides["train"] & sides["test"] or sides["validation"] & sides["test"]
    )
    order = list(range(len(x)))
    shuffler.shuffle(order)
    again = open_source(x[order]).splits
    assert {x[order][i].tobytes() for i in again["train"]} == sides["train"]  # whatever the order of files


def test_hashes_see_every_pixel_and_its_place():
    x = np.zeros((65, 1, 8, 8), np.uint8)
    x[np.arange(1, 65), 0, np.arange(64) // 8, np.arange(64) % 8] = 1
    assert len(np.unique(content_hashes(x))) == 65


def test_the_second_start_decodes_nothing(tmp_path, monkeypatch):
    folder_of(tmp_path / "set", images())
    first = open_source(tmp_path / "set")
    from latente.data import decoding

    def never(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoding, "pixels", never)
    second = open_source(tmp_path / "set")
    assert second.fingerprint == first.fingerprint and (second.images[:] == first.images[:]).all()
    picture(images(1, seed=9)[0]).save(tmp_path / "set" / "000.png")  # one file changes: found out by its size or time
    with pytest.raises(AssertionError):
        open_source(tmp_path / "set")


def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTE_CACHE", str(tmp_path / "cache"))
    folder_of(tmp_path / "set", images())
    first = np.array(open_source(tmp_path / "set").images)
    (entry,) = (tmp_path / "cache").glob("images-*")
    (entry / "images.npy").unlink()
    (entry / "images.npy").write_bytes(b"\x93NUMPY")
    assert (open_source(tmp_path / "set").images[:] == first).all()
    monkeypatch.setenv("LATENTE_CACHE", str(tmp_path / "set" / "000.png" / "no"))
    with pytest.raises(DataError, match="LATENTE_CACHE"):
        open_source(tmp_path / "set")


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def bomb(side):
    """A tiny PNG that claims side x side pixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    parts = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_unreadable_files_are_skipped_listed_and_bounded(tmp_path):
    folder = folder_of(tmp_path / "set with spaces é", images(100))
    (folder / "text.png").write_text("I am no picture")
    (folder / "cut.jpg").write_bytes(encoded(picture(images(1, 64)[0]), "JPEG")[:300])
    (folder / "bomb.png").write_bytes(bomb(50_000))
    (folder / "empty.png").touch()
    data = open_source(folder)
    assert len(data.items) == 100
    assert {name for name, _ in data.audit.skipped} == {"text.png", "cut.jpg", "bomb.png", "empty.png"}
    assert all("\n" not in reason for _, reason in data.audit.skipped)
    listed = [value for what, value in data.describe() if what == "unreadable"]
    assert len(listed) == 4 and "text.png: not an image" in listed
    with pytest.raises(DataError, match="--max-bad"):
        open_source(folder, ImageOptions(max_bad=0.01))


def test_a_very_wide_picture_is_read(tmp_path):
    folder = folder_of(tmp_path / "set", images(20))
    Image.new("L", (30_000, 10), 77).save(folder / "wide.png")
    data = open_source(folder, ImageOptions("16"))
    assert len(data.items) == 21 and (data.images[data.keys.index("wide.png")] == 77).all()


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda p: p / "missing", "no file, folder or named source"),
        (lambda p: p, "no images in"),
        (lambda p: folder_of(p, images(1)), "holds 1 image: too few"),
        (lambda p: folder_of(p, images(1)) / "000.png", "is one image; point at a folder"),
        (lambda p: np.zeros((20, 8)), "has shape"),
        (lambda p: np.full((20, 8, 8), np.nan), "NaN"),
        (lambda p: np.full((20, 8, 8), -500), "values from"),
        (lambda p: np.zeros((20, 8, 8), "U3"), "not numbers"),
        (lambda p: np.zeros((20, 4, 4), np.uint8), "too small"),
        (lambda p: np.zeros((20, 8, 8), np.uint8), "different images"),
        (lambda p: (images(20), np.zeros(3)), "20 images but 3 labels"),
        (lambda p: 42, "a source is a path"),
        (lambda p: "hf:" + str(p), "cannot be loaded"),
    ],
)
def test_bad_sources_get_one_clear_line(tmp_path, make, says):
    with pytest.raises(DataError, match=says) as caught:
        open_source(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source, says", [("x.txt", "not a source of images"), ("shakespeare", "is text, not images")])
def test_what_is_no_image_is_refused_where_images_are_wanted(tmp_path, monkeypatch, source, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(DataError, match=says):
        open_source(source, ImageOptions())


def test_each_epoch_is_another_shuffle_of_the_training_split():
    data = open_source("digits")
    first, second = data.order(0, 0), data.order(0, 1)
    assert sorted(first) == sorted(second) == sorted(data.splits["train"]) and (first != second).any()
    assert (first == data.splits["train"][permutation(len(first), 0, "epoch", 0).numpy()]).all()


def test_bad_sizes_get_one_clear_line():
    for size in ("big", "0", "4", "1000", "8x", "-8", "8x8x8"):
        with pytest.raises(DataError, match="--image-size"):
            open_source("digits", ImageOptions(size))


def test_pickles_are_never_opened(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}] * 20, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy"):
        open_source(tmp_path / "x.npy")


def test_too_little_data_is_said():
    few = open_source(images(30))
    assert any("only" in line and "training images" in line for line in few.warnings())
    twice = open_source((np.concatenate([images(30)] * 2), np.repeat([0, 1], 30)))
    lines = " ".join(twice.warnings())
    assert "more than one label" in lines and "exact duplicates" in lines
    assert not open_source("digits").warnings()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), st.data())
def test_mangled_pictures_are_read_or_refused(kind, data):
    content = bytearray(encoded(picture(images(1, 16, 3)[0]), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        assert pixels(content, 3, 16, 16).shape == (3, 16, 16)
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 500


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".npy", ".npz", ".parquet", "-idx3-ubyte", "-idx3-ubyte.gz"]), st.data())
def test_mangled_files_are_read_or_refused(tmp_path_factory, kind, data):
    path = tmp_path_factory.mktemp("mangled") / f"x{kind}"
    x = images(20, 8)
    if "idx" in kind:
        content = struct.pack(">HBB3I", 0, 8, 3, 20, 8, 8) + x.tobytes()
        path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    else:
        write_images(path, x)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        open_source(path)
    except DataError as error:
        assert "\n" not in str(error)


def test_a_contact_sheet_shows_every_image(tmp_path):
    x = images(30, 12, 3)
    sheet = contact_sheet([("thirty", x), ("", x[:5])], tmp_path / "deep" / "sheet.png", columns=10)
    assert (tmp_path / "deep" / "sheet.png").exists()
    found = np.asarray(sheet)
    first = np.asarray(picture(x[0]).resize((60, 60), Image.Resampling.NEAREST))
    assert (found[14 + 24 : 14 + 24 + 60, 14 : 14 + 60] == first).all()


def test_the_record_of_a_source_is_plain_json(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTE_CACHE", str(tmp_path / "cache"))
    open_source(folder_of(tmp_path / "set", images()))
    (record,) = (tmp_path / "cache").glob("images-*/record.json")
    assert json.loads(record.read_text())["shape"] == [40, 1, 12, 12]


def test_pictures_of_one_name_and_two_kinds_keep_two_names():
    data = open_source("digits")
    data.keys = ["a.png", "b.png", "a.jpg", "a-2.png", "a.gif", "c/a.png"]
    assert data.names(np.arange(6)) == ["a", "b", "a-2", "a-2-2", "a-3", "c/a"]


def test_only_the_suffix_of_a_picture_is_left_out_of_a_name():
    data = open_source(np.zeros((12, 8, 8), np.uint8) + np.arange(12, dtype=np.uint8)[:, None, None])
    data.keys = ["scan.001", "scan.002", "a.PNG", "b"]
    assert data.names(np.arange(4)) == ["scan.001", "scan.002", "a", "b"]


def test_a_npz_names_its_images_and_classes(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (12, 8, 8), np.uint8), np.arange(12) % 3
    names = [f"p/{number}.jpg" for number in range(12)]
    for number, (more, keys, classes) in enumerate((
        ({"names": names, "classes": ["dog", "cat", "owl"]}, names, ("dog", "cat", "owl")),
        ({"names": names[:11], "classes": ["dog", "cat"]}, None, ("0", "1", "2")),
        ({"names": [*names[:11], "../x.jpg"], "classes": [1, 2, 3]}, None, ("0", "1", "2")),
        ({"names": np.arange(12), "classes": [["a", "b", "c"]]}, None, ("0", "1", "2")), ({}, None, ("0", "1", "2")),
    )):  # fmt: skip
        np.savez(tmp_path / f"{number}.npz", x=x, y=y, **{name: np.array(value) for name, value in more.items()})
        data = open_source(tmp_path / f"{number}.npz")
        assert (data.keys, data.spec.classes) == (keys, classes) and (data.labels == y).all()
