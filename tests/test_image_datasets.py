"""Image splits: re-binarized in training, binarized once for evaluation."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from textvae.errors import UserError
from textvae.images.datasets import ImageSplit, read_images
from textvae.images.drawings import Drawings, write_drawings
from textvae.vae.batching import BatchLoader, LengthBuckets

MNIST = Path(os.environ.get("TEXTVAE_TEST_DATA", "absent")) / "mnist" / "mnist_uint8.npz"


def drawings(count: int = 40, side: int = 6, seed: int = 0) -> Drawings:
    rng = np.random.default_rng(seed)
    return Drawings(
        rng.integers(256, size=(count, side, side), dtype=np.uint8),
        np.arange(count) % 3,
        list("abc"),
    )


def loader(split: ImageSplit) -> BatchLoader:
    return BatchLoader(split, LengthBuckets(split.lengths, 7, seed=3))


def test_gray_is_the_probability_of_ink():
    gray = np.repeat(np.array([0, 1, 64, 128, 254, 255], np.uint8), 200_000).reshape(1, 6, -1)
    split = ImageSplit(Drawings(gray))
    for pixels in (split.batch([0]).x, split.batch([0], epoch=0).x):
        shares = pixels[0, 0].mean(-1).double().numpy()
        assert shares[0] == 0 and shares[-1] == 1
        expected = np.array([0, 1, 64, 128, 254, 255]) / 255
        errors = np.sqrt(expected * (1 - expected) / 200_000)
        assert (np.abs(shares - expected) <= 5 * errors).all()


def test_images_for_evaluation_never_change():
    split, rows = ImageSplit(drawings(), seed=0), np.array([3, 0, 7])
    own = split.batch(rows)
    assert set(own.x.unique().tolist()) == {0.0, 1.0}
    assert own.x.shape == (3, 1, 6, 6) and own.lengths.tolist() == [36] * 3
    assert own.index.tolist() == [3, 0, 7] and own.labels.tolist() == [0, 0, 1]
    again = ImageSplit(drawings(), seed=5).batch(rows[::-1].copy())
    assert bool((own.x == again.x.flip(0)).all())


def test_training_images_change_with_the_epoch_and_the_seed():
    split, rows = ImageSplit(drawings(), seed=1), np.array([3, 0])
    first = split.batch(rows, epoch=0).x
    assert bool((first == split.batch(rows, epoch=0).x).all())
    assert bool((first != split.batch(rows, epoch=1).x).any())
    assert bool((first != ImageSplit(drawings(), seed=2).batch(rows, epoch=0).x).any())


def test_a_loader_continues_with_the_same_pixels():
    split = ImageSplit(drawings(), seed=1)
    whole, half = loader(split), loader(split)
    expected = [batch.x for _ in range(2) for batch in whole]
    position = []
    for batch in half:
        position.append(batch.x)
        if len(position) == 2:
            break
    resumed = loader(split)
    resumed.load_state_dict(half.state_dict())
    found = position + [batch.x for _ in range(2) for batch in resumed]
    assert len(found) == len(expected) == 12
    assert all(bool((a == b).all()) for a, b in zip(found, expected, strict=True))


def test_an_epoch_has_every_image_once():
    split = ImageSplit(drawings())
    rows = [int(i) for batch in loader(split) for i in batch.index]
    assert sorted(rows) == list(range(40)) and rows != sorted(rows)


def test_a_folder_of_splits(tmp_path):
    for seed, name in enumerate(("train", "valid", "test")):
        write_drawings(tmp_path / f"{name}.npz", drawings(10, seed=seed))
    splits = read_images(str(tmp_path))
    assert list(splits) == ["train", "valid", "test"] and len(splits["test"]) == 10
    hashes = {split.content_hash for split in splits.values()}
    assert len(hashes) == 3 and read_images(str(tmp_path))["train"].content_hash in hashes


def test_missing_splits_are_held_out_the_same_for_every_seed(tmp_path):
    write_drawings(tmp_path / "all.npz", drawings(100))
    splits = read_images(str(tmp_path / "all.npz"), seed=0)
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 90,
        "valid": 5,
        "test": 5,
    }
    grays = np.concatenate([split.gray for split in splits.values()])
    assert len(np.unique(grays.reshape(100, -1), axis=0)) == 100
    other = read_images(str(tmp_path / "all.npz"), seed=1)
    assert other["test"].content_hash == splits["test"].content_hash


def write(folder: Path, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        np.savez(folder / f"{name}.npz", images=array)


WRONG = {
    "an empty folder": (lambda f: ".", "has no training images"),
    "a folder with a file of another name": (
        lambda f: write(f, mine=drawings().images) or ".",
        r"if mine\.npz holds all splits, give .*mine\.npz$",
    ),
    "no such file": (lambda f: "nowhere.npz", "does not exist"),
    "a text": (
        lambda f: (f / "a.txt").write_text("a") and "a.txt",
        r"a folder, an \.npz file or a",
    ),
    "two images": (
        lambda f: write(f, a=drawings(2).images) or "a.npz",
        "2 images, too few to hold out valid and test",
    ),
    "two sizes": (
        lambda f: write(f, train=drawings(30).images, test=drawings(9, 5).images) or ".",
        "images of different sizes",
    ),
    "splits within a split": (
        lambda f: np.savez(f / "train.npz", x_train=drawings().images) or ".",
        "has no array named images, only splits: train",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_read_is_one_line(case, tmp_path):
    make, message = WRONG[case]
    place = str(tmp_path / make(tmp_path))
    with pytest.raises(UserError, match=message) as error:
        read_images(place)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not MNIST.exists(), reason="TEXTVAE_TEST_DATA has no MNIST")
def test_mnist_as_published():
    splits = read_images(str(MNIST))
    assert (len(splits["train"]), len(splits["test"])) == (57_000, 10_000)
    assert splits["test"].size == (28, 28) and splits["test"].labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_labels_have_the_same_numbers_in_all_splits(tmp_path):
    images = np.zeros((4, 2, 2), np.uint8)
    names = {"train": ["cat", "dog"], "valid": ["dog", "cat"], "test": ["cow", "dog"]}
    for split in names:
        drawings = Drawings(images, np.array([0, 1, -1, 1]), names[split])
        write_drawings(tmp_path / f"{split}.npz", drawings)
    splits = read_images(str(tmp_path))
    for split in splits.values():
        assert split.label_names == ["cat", "dog", "cow"]
    assert splits["train"].labels.tolist() == [0, 1, -1, 1]
    assert splits["valid"].labels.tolist() == [1, 0, -1, 0]
    assert splits["test"].labels.tolist() == [2, 1, -1, 1]


def test_batches_of_an_epoch_have_thresholds_of_their_own():
    split = ImageSplit(Drawings(np.full((4, 6, 6), 128, np.uint8)))
    first, second = (split.batch(rows, epoch=0).x for rows in ([0, 1], [2, 3]))
    assert bool((first != second).any())


def test_a_loader_binarizes_again_in_every_epoch():
    split = ImageSplit(drawings(), seed=1)
    first = next(iter(loader(split)))
    assert torch.equal(first.x, split.batch(first.index.numpy(), epoch=0).x)
