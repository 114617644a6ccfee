"""Image files: what is read, and what is refused in one line."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from textvae.errors import UserError
from textvae.images.datasets import read_image_file, read_images
from textvae.images.drawings import Drawings, write_drawings
from textvae.images.readers import (
    read_hub,
    read_idx,
    read_idx_folder,
    read_mat,
    read_npz,
    read_pictures,
)
from textvae.runs.latents import read_latents

GREY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([1, 0])


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def published(tmp_path):
    """A folder with the four MNIST files, two of them gzipped."""
    for name in ("train", "t10k"):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(GREY))
        labels = gzip.compress(idx(LABELS.astype(np.uint8)))
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(labels)
    return tmp_path


def test_the_published_files(published):
    found = read_idx_folder(published)
    assert set(found) == {"train", "test"}
    np.testing.assert_array_equal(found["test"].images, GREY)
    np.testing.assert_array_equal(found["train"].labels, LABELS)
    assert found["train"].label_names == ["0", "1"]


WRONG = {
    "nothing": (b"", "not an idx file of unsigned bytes"),
    "another format": (b"PK\x03\x04" + bytes(40), "not an idx file of unsigned bytes"),
    "numbers of another type": (struct.pack(">HBBI", 0, 13, 1, 1) + bytes(4), "not an idx file"),
    "a header cut short": (idx(GREY)[:10], "not an idx file of unsigned bytes"),
    "truncated": (idx(GREY)[:-1], "truncated or damaged.* 24 bytes, but only 23 follow"),
    "too long": (idx(GREY) + b"x", "truncated or damaged.* 24 bytes, but more follow"),
    "a lying header": (struct.pack(">HBBIII", 0, 8, 3, *[2**32 - 1] * 3), "but only 0 follow"),
    "a truncated gzip": (gzip.compress(idx(GREY))[:-9], "cannot be read"),
    "a damaged gzip": (b"\x1f\x8b" + bytes(30), "cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_idx_file_is_one_line(case, tmp_path):
    content, message = WRONG[case]
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_idx(tmp_path / "train-images-idx3-ubyte")
    assert "\n" not in str(error.value) and "train-images" in str(error.value)


def test_labels_of_other_images(published):
    (published / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(UserError, match=r"labels have shape \(3,\), but there are 2 images"):
        read_idx_folder(published)


def test_npz_files_of_both_layouts(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=LABELS, x_test=GREY[:1], y_test=LABELS[:1])
    found = read_npz(tmp_path / "a.npz")
    assert len(found["train"].images) == 2 and len(found["test"].images) == 1
    write_drawings(tmp_path / "b.npz", Drawings(GREY, LABELS, ["zero", "one"]))
    again = read_npz(tmp_path / "b.npz")["all"]
    np.testing.assert_array_equal(again.images, GREY)
    assert again.label_names == ["zero", "one"]
    write_drawings(tmp_path / "c.npz", Drawings(GREY))
    assert read_npz(tmp_path / "c.npz")["all"].labels is None


def test_shares_become_bytes(tmp_path):
    np.savez(tmp_path / "a.npz", images=GREY / 255)
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz")["all"].images, GREY)


def test_bytes_that_are_0_and_1_are_binary_images(tmp_path, caplog):
    ink = np.array([[[0, 1], [1, 0]]], np.uint8)
    np.savez(tmp_path / "a.npz", images=ink, labels=[1], label_names=np.array([b"cat", b"dog"]))
    with caplog.at_level("INFO"):
        found = read_npz(tmp_path / "a.npz")["all"]
    np.testing.assert_array_equal(found.images, 255 * ink)
    assert "pixels are 0 and 1: read as binary images" in caplog.text
    assert found.label_names == ["cat", "dog"]


def test_another_kind_of_file_is_not_taken_for_a_pickle(tmp_path):
    (tmp_path / "picture.npz").write_bytes(b"\x89PNG\r\n")
    for read in (read_npz, read_latents):
        with pytest.raises(UserError, match=r"it is not a zip archive$"):
            read(tmp_path / "picture.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": GREY}, "neither images nor x_train and x_test: it has other"),
        ({"images": GREY[0]}, r"images must be \(N, H, W\), not \(3, 4\)"),
        ({"images": GREY.astype(float)}, "integers from 0 to 255, or numbers from 0 to 1"),
        ({"images": np.full((1, 2, 2), np.nan)}, "integers from 0 to 255, or numbers from 0 to 1"),
        ({"images": GREY, "labels": LABELS - 2}, "labels from -2 to -1 are invalid"),
        ({"images": GREY, "labels": LABELS + 10**9}, "go up to 1000000001, with 2 images: numb"),
        ({"images": GREY, "labels": LABELS, "label_names": ["a"]}, "labels from 0 to 1 are"),
        (
            {"images": np.array([object()])},
            r"not an \.npz file of numbers: it holds Python objects$",
        ),
    ],
    ids=["names", "shape", "range", "nan", "negative", "large", "few names", "objects"],
)
def test_a_wrong_npz_file_is_one_line(arrays, message, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message) as error:
        read_npz(tmp_path / "a.npz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(9), b"\x93NUMPY"])
def test_a_broken_npz_file_is_one_line(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"truncated or not an \.npz"):
        read_npz(tmp_path / "a.npz")


def test_burdas_file_stores_drawings_in_columns(tmp_path):
    from scipy.io import savemat

    drawing = np.random.default_rng(0).integers(2, size=(5, 5))
    columns = drawing.T.reshape(25, 1).astype(float)  # as MATLAB unrolls it
    target = np.eye(3)[:, [2]]
    arrays = {"data": columns, "testdata": columns, "target": target, "testtarget": target}
    savemat(tmp_path / "chardata.mat", arrays)
    found = read_mat(tmp_path / "chardata.mat")
    np.testing.assert_array_equal(found["test"].images[0], 255 * drawing)
    assert found["train"].labels.tolist() == [2]
    (tmp_path / "chardata.mat").write_bytes(b"MATLAB 5.0" + bytes(200))
    with pytest.raises(UserError, match=r"is not Burda's chardata\.mat"):
        read_mat(tmp_path / "chardata.mat")


def test_a_hub_data_set(monkeypatch):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(2)})
    rows = {"image": list(GREY), "label": LABELS.tolist()}
    split = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name: {"train": split, "validation": split}
    )
    found = read_hub("owner/name")
    assert set(found) == {"train", "valid"}
    np.testing.assert_array_equal(found["valid"].images, GREY)
    assert found["train"].labels.tolist() == LABELS.tolist()


def test_an_unreachable_hub(monkeypatch):
    import datasets

    def fail(name):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"neither a file, a folder, .*: no network"):
        read_hub("owner/name")


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16])
def test_integers_of_every_size_are_pixels(kind, tmp_path):
    images = np.arange(0, 256, 4).reshape(4, 4, 4)
    np.savez(tmp_path / "a.npz", images=images.astype(kind))
    np.savez(tmp_path / "b.npz", images=images.astype(np.uint8))
    found = [read_npz(tmp_path / name)["all"].images for name in ("a.npz", "b.npz")]
    assert found[0].dtype == np.uint8 and np.array_equal(*found)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 3, 3), "a"), "pixels must be numbers, not <U1"),
        (np.full((2, 3, 3), 256), "integers from 0 to 255, or numbers from 0 to 1"),
        (np.full((2, 3, 3), 2j), "pixels must be numbers, not complex128"),
    ],
)
def test_pixels_that_are_none_are_one_line(images, message, tmp_path):
    np.savez(tmp_path / "a.npz", images=images)
    with pytest.raises(UserError, match=message):
        read_npz(tmp_path / "a.npz")


def test_images_without_a_training_split_are_one_line(tmp_path):
    np.savez(tmp_path / "a.npz", x_test=np.zeros((4, 3, 3)))
    with pytest.raises(UserError, match="no training images, only test"):
        read_images(str(tmp_path / "a.npz"))


def picture(path, size=(4, 3), ink=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, ink).save(path)


def test_pictures_in_folders(tmp_path, caplog):
    caplog.set_level("INFO", "textvae")
    for split, label, ink in (("train", "a", 9), ("train", "b", 200), ("val", "b", 7)):
        picture(tmp_path / split / label / "1.png", ink=ink)
    found = read_pictures(tmp_path)
    assert found.keys() == {"train", "valid"}
    train = found["train"]
    assert "the train split is read as pictures: 2 images, labels a, b" in caplog.text
    assert train.images.shape == (2, 3, 4) and train.images[:, 0, 0].tolist() == [9, 200]
    assert (train.labels.tolist(), train.label_names) == ([0, 1], ["a", "b"])
    assert read_images(str(tmp_path))["valid"].gray[0, 0, 0] == 7


def test_pictures_without_labels_or_splits(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.PNG", ink=i)
    images = read_images(str(tmp_path))
    assert images["train"].labels is None
    assert sum(map(len, images.values())) == 3
    np.savez(tmp_path / "all.npz", images=GREY)
    with pytest.raises(UserError, match=r"if all\.npz holds all splits, give"):
        read_images(str(tmp_path))  # the pictures only show what is in the dataset


def test_a_folder_of_pictures_is_read_like_a_file(tmp_path):
    for name, image in zip("ab", GREY, strict=True):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "1.png")
    found = read_image_file(tmp_path)
    assert found.labels == ["a", "b"] and found.inputs.shape == GREY.shape
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no pictures"):
        read_image_file(tmp_path / "empty")


def test_the_names_of_splits_are_no_labels(tmp_path):
    for split in ("train", "valid", "test"):
        for i in range(2):
            picture(tmp_path / split / f"{i}.png", ink=i)
    found = read_pictures(tmp_path)
    assert {split: drawings.label_names for split, drawings in found.items()} == {
        "train": None,
        "valid": None,
        "test": None,
    }


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "LA"])
def test_pictures_that_gray_cannot_hold_are_refused(mode, tmp_path):
    ink = 30_000 if mode == "I;16" else (0,) * len(mode)  # transparent
    for i in range(4):
        Image.new(mode, (4, 3), ink).save(tmp_path / f"{i}.png")
    with pytest.raises(UserError, match=r"16 bits or more: conv|transparent pixels: fill"):
        read_images(str(tmp_path))


def test_an_opaque_color_picture_in_a_folder_with_brackets(tmp_path):
    folder = tmp_path / "pics [1]"
    folder.mkdir()
    for i in range(4):
        Image.new("RGBA", (4, 3), (255, 255, 255, 255)).save(folder / f"{i}.png")
    assert read_images(str(folder))["train"].gray.min() == 255


def test_pictures_that_cannot_be_read_are_one_line(tmp_path):
    picture(tmp_path / "train" / "1.png")
    picture(tmp_path / "train" / "2.png", (9, 9))
    with pytest.raises(UserError, match="different sizes, such as 4 x 3 and 9 x 9: scale them"):
        read_images(str(tmp_path))
    noise = np.random.default_rng(0).integers(256, size=(3, 4), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "train" / "2.png")
    content = (tmp_path / "train" / "2.png").read_bytes()
    (tmp_path / "train" / "2.png").write_bytes(content[:45])
    with pytest.raises(UserError, match="cannot be read: "):
        read_images(str(tmp_path))
