"""Images from end to end: training, resuming, every command, labels."""

import io
import json
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from conftest import in_child
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from textvae.errors import UserError
from textvae.evaluation.comparison.compare import compare
from textvae.evaluation.latent import map as map_module
from textvae.evaluation.latent import probe as probe_module
from textvae.evaluation.latent.classification import Labeled, classify
from textvae.evaluation.latent.map import draw_map, draw_points, in_two_dimensions
from textvae.evaluation.latent.probe import probe
from textvae.evaluation.metrics.card_files import find_card
from textvae.evaluation.open_run import open_run
from textvae.images.drawings import Drawings, write_drawings
from textvae.images.pictures import grid, write_png
from textvae.vae.posteriors import DiagGaussian

TINY = [
    *("--data.kind", "images", "--data.batch_size", "16", "--train.threads", "1"),
    *("--model.latent_dim", "2", "--images.encoder_hidden", "8", "--images.encoder_layers", "2"),
    *("--images.decoder_hidden", "8", "--images.decoder_layers", "2"),
    *("--optim.name", "adam", "--optim.lr", "0.01", "--optim.schedule", "constant"),
    *("--train.epochs", "4", "--train.log_every", "3", "--train.samples", "2"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three splits of vertical or horizontal bars; the label is the direction."""
    folder, rng = tmp_path_factory.mktemp("bars"), np.random.default_rng(0)
    for split, count in (("train", 200), ("valid", 40), ("test", 40)):
        labels = np.arange(count) % 2
        images = np.full((count, 8, 8), 20, np.uint8)
        for image, label in zip(images, labels, strict=True):
            at = rng.integers(1, 6)
            (image if label else image.T)[at : at + 2] = 240
        drawings = Drawings(images, labels, ["upright", "level"])
        write_drawings(folder / f"{split}.npz", drawings)
    return folder


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A finished run with its card; tests must not change it."""
    run = tmp_path_factory.mktemp("runs") / "bars"
    assert in_child(["train", "--out", str(run), *TINY, "--data.dir", str(folder)]) == 0
    assert in_child(["evaluate", str(run), "--samples", "5"]) == 0
    return run


def weights(run):
    return load_file(run / "model.safetensors")


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(bool((a[name] == b[name]).all()) for name in a)


def test_the_folder_describes_its_contents(run):
    config = (run / "config.yaml").read_text()
    assert "kind: images" in config and "tokenizer" not in config and "word_dropout" not in config
    assert json.loads((run / "config.json").read_text())["height"] == 8
    card = find_card(run)
    assert card["count"] == 40 and card["tokens"] == 40 * 64 and card["ppl_iw"] is None
    assert card["elbo"] > -44  # a coin flip for every pixel


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(run, folder, tmp_path):
    other = tmp_path / "other"
    options = ["--out", str(other), *TINY, "--data.dir", str(folder), "--train.save_every", "5"]

    def kill(pid: int) -> None:
        ends = time.monotonic() + 60
        while not (other / "checkpoint" / "state.pt").exists() and time.monotonic() < ends:
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)

    assert in_child(["train", *options], meanwhile=kill) == -signal.SIGKILL
    assert in_child(["train", "--resume", str(other)]) == 0
    assert same(weights(run), weights(other))


def test_bf16_trains(folder, tmp_path):
    options = ["--out", str(tmp_path / "run"), *TINY, "--data.dir", str(folder)]
    assert in_child(["train", *options, "--train.precision", "bf16"]) == 0


def test_tensorboard_has_pictures(run):
    board = EventAccumulator(str(run)).Reload()
    assert {"samples", "reconstructions"} <= {t.partition("/")[0] for t in board.Tags()["images"]}
    folder = run / "projector" / "posterior"
    assert (folder / "sprite.png").exists()
    rows = (folder / "metadata.tsv").read_text().splitlines()
    assert rows[1] == "upright\timage 0" and len(rows) == 41


def read(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_commands_draw_grids(run, tmp_path, capfd):
    out = tmp_path / "grid.png"
    for words in (
        ["sample", "-n", "5"],
        ["sample", "--walk", "3", "--greedy"],
        ["reconstruct"],
        ["reconstruct", "0", "3", "39", "--use", "sample"],
        ["interpolate", "0", "1", "--steps", "4", "--kind", "spherical"],
    ):
        assert in_child([words[0], str(run), *words[1:], "--out", str(out)]) == 0
        assert read(out).ndim == 2 and read(out).shape[1] >= 1000
        out.unlink()
    assert "wrote 5 images to" in capfd.readouterr().out


def test_encode_and_decode_are_files(run, folder, tmp_path):
    means, out = tmp_path / "means.npz", tmp_path / "grid.png"
    assert in_child(["encode", str(run), str(folder / "test.npz"), "--out", str(means)]) == 0
    assert np.load(means)["mean"].shape == (40, 2)
    assert in_child(["decode", str(run), str(means), "--out", str(out)]) == 0
    assert out.exists()


def test_scores_of_images(run, folder, capfd):
    argv = ["score", str(run), str(folder / "test.npz"), "--samples", "5", "--regret-steps", "2"]
    assert in_child([*argv, "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    card = find_card(run)
    for key in ("elbo", "iw", "kl", "bits_per_dim_iw"):
        assert np.mean([row[key] for row in rows]) == pytest.approx(card[key], rel=1e-4)
    assert [row["label"] for row in rows[:2]] == ["upright", "level"]
    assert rows[3]["text"] == "image 3" and "ppl_iw" not in rows[3]
    assert in_child([*argv, "--labels", "--format", "jsonl"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["positive"], found["positives"], found["negatives"]) == ("level", 20, 20)
    assert found["scores"]["tokens"]["auroc"] == 0.5  # all images have the same size


def test_the_latent_space_of_images(run, folder, tmp_path, capfd):
    out = str(tmp_path / "a.png")
    assert in_child(["traverse", str(run), "3", "--dim", "1", "0", "--out", out]) == 0
    printed = capfd.readouterr().out
    assert "wrote 14 images" in printed and "row 2: dimension 0, value -3 to 3" in printed
    assert read(out).shape[0] < read(out).shape[1]  # two rows of seven
    argv = ["arithmetic", str(run), "0", "1", "--from", "upright", "--to", "1", "--out", out]
    assert in_child(argv) == 0
    assert "wrote 2 images" in capfd.readouterr().out
    assert in_child(["neighbors", str(run), "3", "-n", "2"]) == 0
    _, first, _ = capfd.readouterr().out.splitlines()
    assert first.split() == ["0.000", "3", "level", "image", "3"]


def test_new_images_are_evaluated(run, folder, tmp_path, capfd):
    shutil.copytree(run, tmp_path / "run")
    with np.load(folder / "valid.npz") as arrays:
        np.savez(tmp_path / "new.npz", images=arrays["images"][:10])
    assert in_child(["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "new.npz")]) == 0
    assert find_card(tmp_path / "run", "new.npz")["count"] == 10
    np.savez(tmp_path / "small.npz", images=np.zeros((3, 4, 4), np.uint8))
    words = ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "small.npz")]
    assert in_child(words) == 2
    assert "images must be (N, 8, 8), not (3, 4, 4)" in capfd.readouterr().err


REFUSED = {
    "no place for the picture": (["sample", "RUN"], "--out FILE.png"),
    "another kind of picture": (["sample", "RUN", "--out", "a.gif"], "written as .png"),
    "an option of sentences": (
        ["sample", "RUN", "--out", "a.png", "--top-k", "3"],
        "--top-k applies only to text models",
    ),
    "a sentence": (
        ["reconstruct", "RUN", "hello", "--out", "a.png"],
        "an index into the test split, from 0 to 39",
    ),
    "an image too far": (["interpolate", "RUN", "0", "40", "--out", "a.png"], "from 0 to 39"),
    "no such file": (
        ["reconstruct", "RUN", "--file", "x", "--out", "a.png"],
        "x does not exist",
    ),
    "no images": (["encode", "RUN", "nowhere.npz", "--out", "a.npz"], "does not exist"),
    "no texts": (["score", "RUN", "-"], "images cannot be read from standard input"),
    "no columns": (["score", "RUN", "a.npz", "--data.text_column", "a"], "chosen for text"),
    "no label": (
        ["arithmetic", "RUN", "0", "--from", "upright", "--to", "slanted", "--out", "a.png"],
        "choose from upright, level",
    ),
    "no map": (["map", "RUN", "--out", "a.jpg"], "written as .svg, .png, .pdf"),
    "no split": (["probe", "RUN", "--split", "dev"], "no split 'dev'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_command_cannot_do_is_one_line(case, run, tmp_path, monkeypatch, capfd):
    words, message = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    assert in_child([str(run) if word == "RUN" else word for word in words]) == 2
    error = capfd.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.word_dropout", "0.2"], "--model.word_dropout does not apply"),
        (["--tokenizer.kind", "char"], "--tokenizer.kind does not apply"),
        (["--inference.token_share", "0.5"], "--inference.token_share does not apply"),
        (["--data.max_tokens", "9"], "--data.max_tokens does not apply"),
        (["--model.injection", "init"], "only a recurrent decoder"),
        (["--images.encoder_layers", "0"], "--images.encoder_layers 0 means no encoder"),
        (["--images.encoder_layers", "9"], "too many halvings"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_that_do_not_apply_are_one_line(options, message, folder, tmp_path, capfd):
    words = ["train", "--out", str(tmp_path / "run"), *TINY, "--data.dir", str(folder), *options]
    assert in_child(words) == 2
    error = capfd.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_image_options_do_not_apply_to_text(trained, tiny, tmp_path, capfd):
    words = ["train", "--out", str(tmp_path / "run"), *tiny, "--images.decoder", "mlp"]
    assert in_child(words) == 2
    assert "--images.decoder does not apply if --data.kind is text" in capfd.readouterr().err
    assert in_child(["sample", str(trained), "--out", str(tmp_path / "a.png")]) == 2
    assert "sentences are written as text" in capfd.readouterr().err


def test_a_grid_has_every_image_in_its_place(tmp_path):
    images = torch.arange(5).view(5, 1, 1).expand(5, 2, 3) / 4.0
    sheet = grid(images, columns=2)
    assert sheet.shape == (3 * 3 + 1, 2 * 4 + 1)
    assert [int(sheet[1 + 3 * (i // 2), 1 + 4 * (i % 2)]) for i in range(5)] == [
        0,
        64,
        128,
        191,
        255,
    ]
    assert sheet[0, 0] == sheet[-1, -1] == 128
    write_png(tmp_path / "a.png", sheet)
    drawn = read(tmp_path / "a.png")
    assert drawn.shape[0] == 100 * sheet.shape[0] and bool((drawn[::100, ::100] == sheet).all())


def test_a_probe_is_repeatable_and_saved(run, folder, tmp_path, capfd):
    shutil.copytree(run, tmp_path / "run")
    first, again = (probe(tmp_path / "run", seed=0) for _ in range(2))
    assert first == again and first["classes"] == 2 and first["probed"] == 40
    error = (first["accuracy"] * (1 - first["accuracy"]) / 40) ** 0.5
    assert first["accuracy_se"] == pytest.approx(error, rel=0.02)
    assert first["majority_accuracy"] == 0.5
    assert in_child(["probe", str(tmp_path / "run")]) == 0
    assert "± " in capfd.readouterr().out
    assert find_card(tmp_path / "run")["accuracy"] == first["accuracy"]
    assert "accuracy %" in compare([tmp_path / "run"])


def test_a_probe_with_few_labels_uses_no_more(run, tmp_path, capfd):
    shutil.copytree(run, tmp_path / "run")
    whole = probe(tmp_path / "run")
    few = probe(tmp_path / "run", labels=20)
    assert few["trained_on"] == 20 < whole["trained_on"] and few["probed"] == whole["probed"]
    assert (tmp_path / "run" / "metrics" / "test-probe-labels20.json").exists()
    assert find_card(tmp_path / "run")["accuracy"] == whole["accuracy"]  # not the few
    assert probe(tmp_path / "run", labels=whole["trained_on"])["trained_on"] == whole["trained_on"]
    with pytest.raises(UserError, match="labels=100000: the training split has only"):
        probe(tmp_path / "run", labels=100000)
    with pytest.raises(UserError, match="labels=1: these examples all have the same label"):
        probe(tmp_path / "run", labels=1)
    assert in_child(["probe", str(tmp_path / "run"), "--labels", "0"]) == 2
    assert "--labels 0: must be above 0" in capfd.readouterr().err


def test_a_class_without_training_examples_is_named(caplog):
    few = Labeled(torch.eye(4), torch.tensor([0, 1, 0, 1]))
    every = Labeled(torch.eye(4), torch.tensor([0, 1, 2, 2]))
    classify([few, few, every], seed=0)
    assert "1 of the classes in the scored split has no training example" in caplog.text


class Given:
    """A model with given posterior means."""

    latent_dim = 2
    condition = None

    def eval(self) -> "Given":
        return self


def test_a_probe_of_known_means(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "run")

    def linear(model, split, **options):
        labels = torch.from_numpy(split.labels)
        noise = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(0)) * 0.1
        means = noise + torch.stack([labels, labels], dim=1)
        return DiagGaussian(means, means)

    def chance(model, split, **options):
        means = torch.randn(len(split), 2, generator=torch.Generator().manual_seed(0))
        return DiagGaussian(means, means)

    monkeypatch.setattr(probe_module, "posteriors", linear)
    found = probe(tmp_path / "run", model=Given())
    assert found["accuracy"] == found["linear_accuracy"] == 1 and 0 < found["accuracy_se"] < 0.03
    monkeypatch.setattr(probe_module, "posteriors", chance)
    found = probe(tmp_path / "run", model=Given())
    assert abs(found["linear_accuracy"] - 0.5) < 0.3


def test_probe_and_map_work_on_labeled_text(trained, tmp_path, capfd):
    shutil.copytree(trained, tmp_path / "text")
    assert in_child(["probe", str(tmp_path / "text"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["classes"] == 3
    assert in_child(["map", str(tmp_path / "text"), "--out", str(tmp_path / "map.png")]) == 0
    assert read(tmp_path / "map.png").ndim == 3


def test_labels_of_a_map_are_plain_text():
    points, labels = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, -1])
    figure = map_module._figure(points, labels, ["_x", "$\\alpha$"], "run $1")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        *("no label", "_x", "$\\alpha$"),
    ]
    figure.savefig(io.BytesIO())  # mathematics that matplotlib cannot parse would be an error


def test_a_map_of_a_few_examples_is_one_of_the_whole_split(trained, tmp_path, monkeypatch):
    drawn, compute = [], map_module.posteriors

    def recorded(model, split, rows, **options):
        drawn.append((len(split), rows))
        return compute(model, split, rows, **options)

    monkeypatch.setattr(map_module, "posteriors", recorded)
    draw_map(trained, tmp_path / "map.png", limit=12)
    ((count, rows),) = drawn
    assert count > len(rows) == 12 and (rows[0], rows[-1]) == (0, count - 1)


def test_a_map_is_of_the_split_the_refinement_and_the_labels_asked_for(
    trained, tmp_path, monkeypatch
):
    asked, shown, figure = [], [], map_module._figure

    def known(model, split, rows, **options):
        asked.append((len(split), options, split.labels[rows]))
        mean = torch.arange(2.0 * len(rows)).view(-1, 2)
        return DiagGaussian(mean, mean)

    def recorded(points, labels, *about):
        shown.append((points, labels, about))
        return figure(points, labels, *about)

    monkeypatch.setattr(map_module, "posteriors", known)
    monkeypatch.setattr(map_module, "_figure", recorded)
    out = tmp_path / "map.svg"
    draw_map(trained, out, split="train", limit=10, refine_steps=3, seed=4, batch_size=5)
    ((count, options, labels),), ((points, drawn, about),) = asked, shown
    assert (count, options) == (96, {"seed": 4, "batch_size": 5, "refine_steps": 3})
    assert points.tolist() == np.arange(20.0).reshape(-1, 2).tolist()  # two dimensions as they are
    assert drawn.tolist() == labels.tolist() != [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert about == (["0", "1", "2"], "vae", None)
    with pytest.raises(UserError, match="at least 10 examples, not 9"):
        draw_map(trained, out, limit=9)
    monkeypatch.setattr(map_module, "open_run", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(UserError, match="plots are written as"):
        draw_map(trained, tmp_path / "map.gif")


def test_few_points_one_dimension_and_any_seed_can_be_mapped():
    rng = np.random.default_rng(0)
    line = rng.random((12, 1), np.float32)
    assert in_two_dimensions(line, 0).tolist() == [[x, 0.0] for x in line[:, 0].tolist()]
    cube = rng.random((10, 3), np.float32)
    for seed in (-1, 2**64 - 1):
        points = in_two_dimensions(cube, seed)
        assert points.shape == (10, 2) and np.isfinite(points).all()


@pytest.mark.parametrize("count", [1, 2, 10, 11, 20, 21, 40])
def test_every_label_has_a_color_and_few_have_a_legend(count):
    points, axes = np.arange(2.0 * count).reshape(-1, 2), Figure().add_subplot()
    shown = draw_points(axes, points, np.arange(count), [f"l{i}" for i in range(count)])
    colors = {tuple(drawn.get_facecolor()[0]) for drawn in axes.collections}
    assert len(colors) == count
    assert [name for name, _ in shown] == [f"l{i}" for i in range(count if 1 < count <= 20 else 0)]


def test_a_map_can_show_the_principal_components(trained, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(map_module, "save_plot", lambda figure, out: drawn.append(figure))
    draw_map(trained, tmp_path / "map.png", method="pca")
    axes = drawn[0].axes[0]
    points = np.concatenate([part.get_offsets() for part in axes.collections])
    assert np.abs(points.mean(0)).max() < 1e-3 * points.std()
    variances = points.var(0)
    assert variances[0] >= variances[1] and abs(np.cov(points.T)[0, 1]) < 1e-4 * variances[0]
    assert re.match(r"component 1 \(\d+% of the variance\)", axes.get_xlabel())
    with pytest.raises(UserError, match="method"):
        draw_map(trained, tmp_path / "map.png", method="umap")


def test_a_map_of_one_point_is_refused(trained, tmp_path):
    same = DiagGaussian(torch.ones(20, 4), torch.zeros(20, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(map_module, "posteriors", lambda *_, **__: same)
        with pytest.raises(UserError, match="are the same point: it ignores its input"):
            draw_map(trained, tmp_path / "map.png")


def test_without_labels_or_a_latent(run, language_model, tmp_path, capfd, monkeypatch):
    shutil.copytree(run, tmp_path / "run")
    unlabeled = open_run(tmp_path / "run")
    unlabeled.splits["test"].labels = None
    with monkeypatch.context() as patch:
        for module in (probe_module, map_module):
            patch.setattr(module, "open_run", lambda *_, **__: unlabeled)
        with pytest.raises(UserError, match="the test split has no labels"):
            probe(tmp_path / "run")
        draw_map(tmp_path / "run", tmp_path / "map.png")
    assert (tmp_path / "map.png").exists()
    assert in_child(["probe", str(language_model)]) == 2
    assert "has no latent" in capfd.readouterr().err
    assert in_child(["map", str(language_model), "--out", str(tmp_path / "b.png")]) == 2
    assert "has no latent variable" in capfd.readouterr().err


def test_a_probe_of_what_it_was_trained_on_says_so(run, caplog):
    probe(run, split="train")
    assert "scored on the examples that it is trained on" in caplog.text


def test_a_probe_of_refined_means_has_a_name_of_its_own():
    assert probe_module.card_name("test") == "test-probe"
    assert probe_module.card_name("test", None, 100, 5) == "test-probe-labels100-refine5"
