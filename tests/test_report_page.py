"""``textvae report``: one file that needs nothing else, is complete, and executes nothing."""

import base64
import io
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY, in_child
from matplotlib.figure import Figure
from PIL import Image

from textvae import TextVAE
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.comparison.compare import compare
from textvae.evaluation.diagnosis.result import Dimension, Evidence
from textvae.evaluation.diagnosis.run_diagnosis import diagnose_run, with_current_remedies
from textvae.evaluation.diagnosis.saved_diagnosis import load_diagnosis
from textvae.evaluation.evaluate_run import evaluate_run
from textvae.evaluation.explanation.result import ExplainedText
from textvae.evaluation.metrics.card_files import find_card
from textvae.evaluation.metrics.metric import decimals
from textvae.evaluation.open_run import open_run
from textvae.evaluation.report import report, view
from textvae.evaluation.report.exhibits import QUANTILES, exhibit
from textvae.evaluation.report.page import shaded, show
from textvae.evaluation.report.svg import css, inline
from textvae.images.drawings import Drawings, write_drawings

ROOT = Path(__file__).parent.parent
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
VOID = {"meta", "img", "br", "link", "input", "hr"}  # elements without an end
NASTY = '<script>document.title="x"</script>'
SECTIONS = {"verdict", "metrics", "training", "samples", "costs", "origin"}
OF_LATENT = {"space", "reconstructions", "dimensions"}
# Where the rightmost element ends in 400 pixels, without those in a box that scrolls by itself.
MEASURE = """
document.documentElement.style.width = "400px"
document.querySelectorAll("details").forEach(each => each.open = true)
const free = [...document.querySelectorAll("body *")].filter(each => !each.closest(".scroll *"))
const ends = free.map(each => Math.round(each.getBoundingClientRect().right))
document.body.dataset.right = Math.max(...ends)
"""


class Page(HTMLParser):
    """The elements and texts of a page, which must be well-formed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(self.source)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"line {self.getpos()[0]}: </{tag}>"

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, *names: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.elements for name in names if name in attrs]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Path:
    """A finished and evaluated run whose latent variable is alive."""
    run = tmp_path_factory.mktemp("reported") / "vae"
    options = [*tiny, "--objective.beta", "0.02", "--train.epochs", "15", "--optim.lr", "0.02"]
    options += ["--optim.name", "adam", "--train.evaluate_every", "3"]
    assert in_child(["train", "--out", str(run), *options]) == 0
    assert in_child(["evaluate", str(run), "--samples", "4", "--generations", "5"]) == 0
    return run


@pytest.fixture(scope="module")
def lm(language_model, tmp_path_factory) -> Path:
    return Path(shutil.copytree(language_model, tmp_path_factory.mktemp("reported") / "lm"))


@pytest.fixture(scope="module")
def single(run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "vae.html"
    assert main(["report", str(run), "--out", str(path), "--fit-sampler"]) == 0
    return path


@pytest.fixture(scope="module")
def comparison(run, lm, single, tmp_path_factory) -> Path:
    """Two runs, one of them not evaluated yet, and the cards of two other models."""
    folder = tmp_path_factory.mktemp("page")
    card = {"model": "the <truth>", "latent_dim": 2, "rec": -9.0, "kl": 2.0, "elbo": -11.0}
    (folder / "truth.json").write_text(json.dumps(card))
    (folder / "bound.json").write_text(json.dumps({"model": "a bound", "iw": -9.5}))
    cards = [folder / "truth.json", folder / "bound.json"]
    report([run, lm, *cards], folder / "both.html", samples=3)
    return folder / "both.html"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> tuple[Path, Path]:
    """A finished run of images, and the page about it."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 60), ("valid", 20), ("test", 20)):
        gray = (rng.random((count, 6, 6)) < 0.4).astype(np.uint8) * 255
        write_drawings(folder / f"{split}.npz", Drawings(gray, np.arange(count) % 2, ["a", "b"]))
    tiny = [*("--data.kind", "images", "--data.batch_size", "20", "--model.latent_dim", "3")]
    tiny += ["--images.encoder", "mlp", "--images.encoder_hidden", "8", "--images.decoder", "mlp"]
    tiny += ["--images.decoder_hidden", "8", "--train.epochs", "1", "--train.precision", "fp32"]
    run = folder / "run"
    assert in_child(["train", "--out", str(run), "--data.dir", str(folder), *tiny]) == 0
    report(run, folder / "page.html", samples=2)
    return run, folder / "page.html"


@pytest.fixture(params=["single", "comparison", "pictures"])
def page(request) -> Page:
    made = request.getfixturevalue(request.param)
    return Page(made[1] if isinstance(made, tuple) else made)


def test_the_page_refers_to_nothing_outside_and_has_no_script(page):
    for value in page.values("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
        assert value.startswith(("#", "data:image/png;base64,"))
    tags = Counter(tag for tag, _ in page.elements)
    assert not tags.keys() & {"script", "iframe", "link", "object", "embed", "form", "base"}
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert not re.search(r"@import|@font-face|url\((?!#)", page.source)
    assert not re.search(r"https?://", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.source))
    (policy,) = (a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_ids_are_unique_and_every_link_leads_somewhere(page):
    ids = Counter(page.values("id"))
    assert max(ids.values()) == 1
    links = [value[1:] for value in page.values("href") if value.startswith("#")]
    links += re.findall(r"url\(#([^)]+)\)", page.source)
    assert links and set(links) <= ids.keys()
    assert ids.keys() >= SECTIONS | OF_LATENT


def test_the_figures_are_those_of_the_card_with_the_intervals_of_the_diagnosis(single, run):
    page, card = Page(single), find_card(run)
    evidence = {row.key: row for row in diagnose_run(run).evidence}
    for key in ("elbo", "kl", "mi", "shuffle_gap"):
        numbers = (card[key], evidence[key].low, evidence[key].high)
        value, low, high = (decimals(number).replace("-", "−") for number in numbers)
        assert f"{value} [{low}, {high}]" in page.text
    assert load_diagnosis(run, "test", card).summary in page.text


def test_every_evaluation_of_the_training_is_in_the_curves(single, run):
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    source = single.read_text(encoding="utf-8")
    curve = source.split('aria-label="ELBO over')[1].split("</svg>")[0]
    markers = re.findall(r'<use href="#curve-elbo-m\w+"[^>]*#0072b2', curve)
    assert len(markers) == sum(record["group"] == "valid" for record in log) == 5
    for title in ("ELBO", "rec", "KL", "MI", "Active units", "KL weight β", "Learning rate"):
        assert f'aria-label="{title} over the epochs of training"' in source
    assert "KL of every dimension of z over the epochs of training" in source


def test_where_the_run_comes_from(single, run):
    page, versions = Page(single), json.loads((run / "versions.json").read_text())
    for fact in (versions["command"], versions["corpus_hash"], versions["device"], str(run)):
        assert " ".join(fact.split()) in page.text
    training = json.loads((run / "training.json").read_text())
    assert f"{training['peak_memory_mb']:,} MiB" in page.text
    assert "latent_dim: 4" in page.text  # of the complete configuration


def test_the_same_run_gives_the_same_file(single, run, tmp_path):
    assert main(["report", str(run), "--out", str(tmp_path / "vae.html")]) == 0
    assert (tmp_path / "vae.html").read_bytes() == single.read_bytes()
    report(run, tmp_path / "other.html", seed=1)
    assert (tmp_path / "other.html").read_bytes() != single.read_bytes()


def test_a_report_of_several_seeds_has_their_mean(run, lm, tmp_path):
    other = tmp_path / "vae-seed-1"
    shutil.copytree(run, other)
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    card = json.loads((other / "metrics/test.json").read_text())
    kls = [card["kl"], card["kl"] + 1]
    (other / "metrics/test.json").write_text(json.dumps(card | {"kl": kls[1]}))
    out = tmp_path / "page.html"
    report([run, other, lm], out, limit=50)
    mean = f"{sum(kls) / 2:.2f} ± {math.sqrt(0.5):.2f}"
    assert "Means over seeds" in Page(out).text and f"<td>{mean}</td>" in out.read_text()
    assert "vae (2 seeds)" in Page(out).text
    report([run, lm], out, limit=50)
    assert "Means over seeds" not in Page(out).text


def test_a_comparison_shows_every_model(comparison, run, lm):
    page = Page(comparison)
    assert f"IW gain: IW minus that of {lm.name} on the same examples" in page.text
    assert "Comparison of 2 runs" in page.text
    for model in ("vae", "lm", "the <truth>"):
        assert page.text.count(model) >= 2  # in the table and in the legend of the plane
    assert page.text.count("a bound") == 1  # only in the table: it has no place in the plane
    assert "language model" in page.text
    assert find_card(lm)["samples"] == 1  # it was evaluated first, and has no z to draw
    plane = comparison.read_text().split('id="plane"')[1].split("</svg>")[0]
    assert len(re.findall(r"plane-LineCollection|plane-line2d", plane)) > 2
    assert "MI, nats" in comparison.read_text() and "PPL (IW), per word" in comparison.read_text()


def test_a_model_without_reconstruction_is_in_the_second_picture_and_in_the_legend(
    run, lm, tmp_path
):
    row = "- {model: theirs, source: a paper, latent_dim: 2, ppl_iw: 12.5"
    for more, times in ((", mi: 1.5}", 2), ("}", 1)):
        (tmp_path / "published.yaml").write_text(row + more)
        out = report([run, lm, tmp_path / "published.yaml"], tmp_path / "page.html", limit=50)
        assert Page(tmp_path / "page.html").text.count("theirs") == times, out


def test_a_published_row_next_to_one_run_is_in_the_table(run, tmp_path):
    (tmp_path / "published.yaml").write_text(
        "- {model: theirs, source: a paper, latent_dim: 2, ppl_iw: 12.5}\n"
    )
    report([run, tmp_path / "published.yaml"], tmp_path / "page.html", limit=12, samples=1)
    page = (tmp_path / "page.html").read_text()
    assert "theirs" in page and "12.50" in page


def test_verdicts_from_some_examples_say_so(run, lm, comparison, tmp_path):
    said = "evenly spaced: their MI is at most"
    assert said not in Page(comparison).text
    copy = Path(shutil.copytree(run, tmp_path / "vae"))
    for saved in (copy / "metrics").glob("test-diagnosis*"):  # of all examples
        saved.unlink()
    report([copy, lm], tmp_path / "page.html", limit=12, samples=3)
    assert f"From 12 examples, {said} {math.log(12):.2f} nats." in Page(tmp_path / "page.html").text


def test_a_language_model_has_no_latent_space(lm, tmp_path):
    report(lm, tmp_path / "lm.html", samples=1)
    page = Page(tmp_path / "lm.html")
    ids = set(page.values("id"))
    assert ids >= SECTIONS and not ids & (OF_LATENT | {"plane"})
    assert "there is nothing to diagnose" in page.text and "nan" not in page.text.split()


def test_runs_with_the_same_name_are_told_apart(run, tmp_path):
    other = Path(shutil.copytree(run, tmp_path / "other" / "vae"))
    report([run, other], tmp_path / "both.html", limit=12)
    text = Page(tmp_path / "both.html").text
    assert str(run) in text and str(other) in text


def test_texts_of_a_corpus_are_never_markup(tmp_path):
    lines = [f"{NASTY[:8]}{i}\t{NASTY} a{i % 5} & <b> b\n" for i in range(40)]
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("".join(lines[: 40 if split == "train" else 12]))
    run = tmp_path / "<img src=x onerror=alert(1)>"
    options = [*TINY, "--data.dir", str(tmp_path), "--train.epochs", "1"]
    assert in_child(["train", "--out", str(run), *options]) == 0
    report(run, tmp_path / "page.html", samples=2)
    page = Page(tmp_path / "page.html")
    assert not [tag for tag, _ in page.elements if tag == "script"]
    assert not [a for tag, a in page.elements if tag == "img" and not a["src"].startswith("data:")]
    for text in (NASTY, NASTY[:8], run.name):
        assert text in page.text
    assert "<script" not in page.source


def test_pictures_are_those_of_the_data(pictures):
    run, path = pictures
    shown = re.findall(r'<img alt="image" src="data:image/png;base64,([^"]+)">', path.read_text())
    found = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in shown]
    assert {image.shape for image in found} == {(6, 6)}
    drawn = open_run(run).split("test").thumbnails(np.arange(20))
    truth = 255 * drawn[:, 0].numpy().astype(np.uint8)
    for image in truth:
        assert any((image == each).all() for each in found)
    assert any(((each > 0) & (each < 255)).any() for each in found)  # means of an MLP decoder


def test_costs_of_a_language_model_are_its_log_probabilities(lm):
    opened = open_run(lm)
    split = opened.split("test")
    costs = exhibit(opened.model, split, limit=1000, seed=0, batch_size=7).costs
    batch = split.batch(np.arange(len(split)))
    with torch.no_grad():
        log_p = opened.model.log_likelihood(batch, torch.zeros(1, len(split), 0))[0]
    bits = (-log_p / math.log(2)).numpy()
    rates = np.sort(bits / split.num_bytes)
    assert costs.unit == "bits per UTF-8 byte" and costs.measured == len(split) == 20
    assert [cost.rate for cost in costs.least] == pytest.approx(rates[:5], rel=1e-4)
    assert [cost.rate for cost in costs.most] == pytest.approx(rates[::-1][:5], rel=1e-4)
    texts = [split.caption(i) for i in range(20)]
    for cost in (*costs.least, *costs.most):
        row = texts.index(cost.example.shown)
        assert cost.bits == pytest.approx(bits[row], rel=1e-4)
        assert cost.example.label == split.label_names[split.labels[row]]


def test_a_traversal_moves_one_dimension_between_quantiles(run):
    opened = open_run(run)
    found = exhibit(opened.model, opened.split("test"), limit=1000, seed=0, batch_size=7).latent
    variances = found.centers.var(axis=0)
    assert found.active == [d for d in np.argsort(-variances).tolist() if variances[d] >= 0.01]
    assert found.active and len(found.traversals) == len(found.active)
    assert found.reconstructions[0] == opened.model.decode(torch.from_numpy(found.centers[:1]))[0]
    for each in found.traversals:
        assert each.values == pytest.approx(
            np.quantile(found.centers[:, each.dimension], QUANTILES)
        )
        z = torch.from_numpy(found.centers[:1]).repeat(len(each.values), 1)
        z[:, each.dimension] = torch.tensor(each.values)
        assert each.outputs == opened.model.decode(z)


def test_interpolations_lead_from_one_label_to_another(run):
    opened = open_run(run)
    found = exhibit(opened.model, opened.split("test"), limit=1000, seed=0, batch_size=7).latent
    ends = [(path[0], path[-1]) for path in found.interpolations]
    outputs = opened.model.decode(torch.from_numpy(found.centers))
    assert ends
    for first, last in ends:
        labels = [{label for text, label in zip(outputs, found.labels, strict=True) if text == end}
                  for end in (first, last)]  # fmt: skip
        assert labels[0] and labels[1] and len(labels[0] | labels[1]) > 1


def test_a_diagnosis_is_read_again_only_if_it_is_of_the_model_on_the_card(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "vae"))
    found, card = diagnose_run(copy), find_card(copy)
    assert str(load_diagnosis(copy, "test", card)) == str(found)
    assert load_diagnosis(copy, "test", {**card, "count": 19}) is None
    assert load_diagnosis(copy, "valid", card) is None
    path = copy / "metrics" / "test-diagnosis.json"
    record = json.loads(path.read_text())
    for broken in ({}, {**record, "summary": 3}, {**record, "evidence": [{"key": "mi"}]}):
        path.write_text(json.dumps(broken))
        assert load_diagnosis(copy, "test", card) is None


def test_remedies_of_a_saved_diagnosis_are_those_of_today(trained, tmp_path):
    copy = Path(shutil.copytree(trained, tmp_path / "vae"))
    model = TextVAE.from_pretrained(copy)
    with torch.no_grad():
        model.encoder.head.weight.zero_()
        model.encoder.head.bias.zero_()  # collapsed
    model.save_pretrained(copy)
    first = diagnose_run(copy, samples=1).remedies[0]
    assert "tried" not in first.reason
    out = Path(shlex.split(first.command)[shlex.split(first.command).index("--out") + 1])
    out.mkdir()
    (out / "config.yaml").write_text("")
    report(copy, tmp_path / "page.html", limit=12, samples=1)
    assert f"already tried in {out}" in (tmp_path / "page.html").read_text()


def test_remedies_of_a_saved_diagnosis_know_how_far_the_training_got(trained, tmp_path):
    copy = Path(shutil.copytree(trained, tmp_path / "vae"))
    record = json.loads((copy / "training.json").read_text())
    (copy / "training.json").write_text(json.dumps(record | {"finished": None}))
    found = diagnose_run(copy, limit=12, samples=1)
    again = with_current_remedies(found, open_run(copy), find_card(copy), 12)
    assert found.remedies == again.remedies


def test_a_diagnosis_of_some_examples_is_read_again_unless_the_weights_are_others(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "vae"))
    found, card = diagnose_run(copy, limit=12), find_card(copy)
    assert str(load_diagnosis(copy, "test", card, limit=12)) == str(found)
    assert load_diagnosis(copy, "test", card, limit=13) is None
    with (copy / "model.safetensors").open("ab") as weights:
        weights.write(b"\0")
    assert load_diagnosis(copy, "test", card, limit=12) is None


def test_what_is_of_earlier_weights_is_computed_again(trained, tmp_path, caplog):
    copy = Path(shutil.copytree(trained, tmp_path / "vae"))
    evaluate_run(copy, samples=4, generations=5)
    diagnose_run(copy, limit=12)
    model = TextVAE.from_pretrained(copy)
    with torch.no_grad():
        model.decoder.embedding.weight.mul_(0.5)
    model.save_pretrained(copy)  # as a resumed training does
    old = json.loads((copy / "metrics" / "test.json").read_text())
    assert find_card(copy)["stale"]
    table = compare([copy, {**old, "model": "before"}])
    assert "**Computed from earlier weights**: vae." in table
    assert "was computed from earlier weights: update it with textvae evaluate" in caplog.text
    caplog.clear()
    report(copy, tmp_path / "page.html", limit=12, samples=4)
    assert "update it with" not in caplog.text  # it did that
    new = json.loads((copy / "metrics" / "test.json").read_text())
    assert new["elbo"] != old["elbo"] and new["weights"] != old["weights"]
    found = json.loads((copy / "metrics" / "test-diagnosis-limit12.json").read_text())
    assert found["weights"] == new["weights"]


def test_a_damaged_log_and_missing_records_leave_out_what_they_had(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "vae"))
    with (copy / "metrics.jsonl").open("a") as log:
        log.write('[1]\n{"group": "valid"}\n{"step": 13, "epoch": 2.2, "gro')
    (copy / "training.json").unlink()
    (copy / "versions.json").unlink()
    report(copy, tmp_path / "page.html", limit=12)
    assert "curve-elbo" in (tmp_path / "page.html").read_text()
    (copy / "metrics.jsonl").unlink()
    report(copy, tmp_path / "page.html", limit=12)
    source = (tmp_path / "page.html").read_text()
    assert "curve-elbo" not in source and "did not log it during training" in source


def evidence(key: str, value: float, low: float, high: float) -> Evidence:
    return Evidence(key, f"name of {key}", value, low, high, "nats")


def test_intervals_of_fewer_examples_are_only_those_that_compare():
    rows = tuple(evidence(key, 1.0, 0.5, 1.5) for key in ("kl", "mi", "marginal_kl", "hole_share"))
    diagnosis = SimpleNamespace(count=20, evidence=rows)
    assert view._comparable(diagnosis, {"count": 20}) == rows
    assert view._comparable(diagnosis, {"count": 500}) == rows[:1]


def test_numbers_have_their_own_interval_or_error():
    card = {"kl": 2.0, "encoder_kl": 1.25, "mi": 1.5, "mi_se": 0.25, "elbo": -9.0, "au": None}
    rows = (
        *(evidence("mi", 1.5, 1.0, 2.0), evidence("kl", 2.0, -math.inf, math.inf)),
        *(evidence("mi_se", 0.25, 0.2, 0.3), evidence("of its own", 3.0, 2.5, 3.5)),
    )
    numbers = {number.name: number for number in view._numbers(card, rows)}
    shown = {name: tuple(number[1:4]) for name, number in numbers.items()}
    assert shown == {
        "ELBO": ("-9.00", "", "–"),
        "KL": ("2.00", "", "1.25"),
        "MI": ("1.50", "[1.00, 2.00]", "–"),
        "name of of its own": ("3.00", "[2.50, 3.50]", "–"),
    }
    assert numbers["MI"].is_main and not numbers["name of of its own"].is_main
    (alone,) = (n for n in view._numbers(card, ()) if n.name == "MI")
    assert (alone.value, alone.interval) == ("1.50 ± 0.25", "")


def test_tiles_have_a_ceiling_or_an_error():
    card = {"mi": 1.5, "mi_se": 0.25, "mi_max": 3.0, "au": 2, "latent_dim": 4, "kl": 1.0}
    tiles = {tile.name: (tile.value, tile.more) for tile in view._tiles(card)}
    assert tiles == {"KL": ("1.00", ""), "MI": ("1.50", "of 3.00"), "AU": ("2", "of 4")}
    (tile,) = view._tiles({"accuracy": 0.5, "accuracy_se": 0.125})
    assert tile.more.startswith("± ") and not tile.value.count("±")


def test_a_row_of_a_dimension_says_when_it_died():
    alive = Dimension(0, "alive", 0.5, 0.25, None, None)
    assert view._row(alive) == ["0", "alive", "0.500", "0.250", "–", "–"]
    dead = Dimension(3, "dead", 0.0, 0.0, 0.0, 0.125, died=2.5)
    assert view._row(dead)[:2] == ["3", "dead since epoch 2.5"] and view._row(dead)[5] == "0.125"


def test_the_kl_of_every_dimension_is_that_of_the_log_or_of_the_card():
    def picture(valid, **card):
        return view._by_dimension(SimpleNamespace(valid=valid, card=card), 0, 1.0)

    logged = {"epoch": 1.0, "kl_per_dim": [0.5, 0.25]}
    assert picture([logged, {"epoch": 2.0}], latent_dim=2, kl_per_dim=[0.5, 0.25]).note == ""
    other = {"epoch": 1.0, "kl_per_dim": [0.5]}  # estimated for all dimensions together
    note = picture([other], latent_dim=2, kl_per_dim=[0.5, 0.25], split="valid").note
    assert note.startswith("On the valid split: ")
    assert picture([other], latent_dim=2, kl_per_dim=[0.5]) is None
    assert picture([], latent_dim=0, kl_per_dim=[]) is None


@pytest.mark.parametrize(
    ("points", "labels", "is_drawn"), [(10, [0, 1] * 5, True), (9, None, False), (0, None, False)]
)
def test_a_map_needs_some_points_that_differ(points, labels, is_drawn):
    centers = np.arange(2.0 * points).reshape(-1, 2)
    known = None if labels is None else np.array(labels)
    latent = SimpleNamespace(centers=centers, labels=known) if points else None
    contents = SimpleNamespace(exhibits=SimpleNamespace(latent=latent), label_names=["a", "b"])
    drawn, shown = view._map(contents, 0, 0)
    assert (drawn is not None) == is_drawn
    assert [name for name, _ in shown] == (["a", "b"] if is_drawn else [])
    if is_drawn:
        latent.centers = np.ones_like(centers)
        assert view._map(contents, 0, 0) == (None, [])


@pytest.mark.parametrize(
    ("verdict", "tone"),
    [
        *(("healthy", "good"), ("under-trained", "fair"), ("partly collapsed", "fair")),
        *(("collapsed", "bad"), ("unread", "bad"), ("over-refined", "bad"), ("holes", "fair")),
    ],
)
def test_a_verdict_has_a_tone_and_all_other_findings(verdict, tone):
    findings = [SimpleNamespace(verdict=name, summary=f"{name}!") for name in (verdict, "holes")]
    diagnosis = SimpleNamespace(
        verdict=verdict,
        summary="so it is",
        findings=findings,
        history=SimpleNamespace(deaths=()),
        remedies=("try",),
    )
    assert view._verdict(diagnosis) == (
        *(verdict, tone, "so it is."),
        *(["Also holes: holes!."], ["try"]),
    )


def test_differences_are_marked_and_long_texts_folded():
    assert show("a <b> c", "a b c") == '<p dir="auto">a <mark>&lt;b&gt;</mark> c</p>'
    assert show("a\nb\x00", "a b") == '<p dir="auto">a <mark>b\ufffd</mark></p>'
    assert "(empty)" in show(" ")
    long = " ".join(f"w{i}" for i in range(200))
    folded = show(long, long)
    assert "<mark>" not in folded and "<details" in folded
    left = int(re.search(r"(\d+) more words", folded)[1])
    assert f"w{200 - left - 1} <span>" in folded and f'<p dir="auto">w{200 - left} ' in folded


def test_grays_follow_the_color_scheme_and_ids_do_not_clash():
    figure = Figure()
    axes = figure.add_subplot(title="a <b> & c", xlabel="x")
    axes.plot([0, 1], color="0.5")
    axes.plot([1, 0], color="#D55E00")
    svg = inline(figure, "one", 'say "hi" <now>')
    assert svg == inline(figure, "one", 'say "hi" <now>')
    assert "color-mix(in srgb, var(--ink) 50%, var(--paper))" in svg
    assert "color-mix(in srgb, #d55e00 var(--vivid), white)" in svg
    assert "#000000" not in svg and "#808080" not in svg
    assert "a &lt;b&gt; &amp; c" in svg and 'aria-label="say &#34;hi&#34; &lt;now&gt;"' in svg
    ids = re.findall(r' id="([^"]+)"', svg)
    assert ids and all(each.startswith("one-") for each in ids)
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) and "xlink" not in svg
    assert css("white") == "color-mix(in srgb, var(--ink) 0%, var(--paper))"


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["{run}", "--out", "{folder}/page.txt"], "a report is written as .html"),
        (["{run}", "--out", "{folder}.html"], "is a folder: choose a file"),
        (["{run}", "--out", "/dev/null/page.html"], "/dev/null is a file, not a folder"),
        (["{folder}", "--out", "{out}"], "is not a run folder"),
        (["{run}/none", "--out", "{out}"], "there is no such run folder or metrics card"),
        (["{run}/metrics/test.json", "--out", "{out}"], "give one or more run folders"),
        (["{run}", "--split", "dev", "--out", "{out}"], "has no split 'dev'"),
        (["{run}", "--data", "{folder}/none", "--out", "{out}"], "no such file or folder"),
        (["{run}", "--data", "{lines}", "--out", "{out}"], "which a report is about: for new"),
        (["{run}", "--limit", "0", "--out", "{out}"], "--limit 0: must be above 0"),
        (["{run}"], "required: --out"),
    ],
)
def test_a_mistake_is_one_line(argv, why, run, tmp_path, capfd):
    places = {"run": run, "folder": tmp_path / "folder", "out": tmp_path / "page.html"}
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "folder").mkdir()
    places["lines"] = tmp_path / "lines.txt"
    places["lines"].write_text("the cat sees the tree\n")
    assert main(["report", *(word.format(**places) for word in argv)]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("textvae: ") and why in line
    assert not (tmp_path / "page.html").exists()


def test_no_runs_at_all(tmp_path):
    with pytest.raises(UserError, match="give one or more run folders"):
        report([], tmp_path / "page.html")


def test_the_templates_are_installed_with_the_package(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    templates = {path.name for path in (ROOT / "textvae/evaluation/report/templates").iterdir()}
    built = {path.name for path in (tmp_path / "textvae/evaluation/report/templates").iterdir()}
    assert built == templates and "report.html" in built


def browse(path: Path, width: int) -> tuple[str, str]:
    """Open a page in a browser; return its elements after loading, and what the console said."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--window-size={width},900", "--dump-dom", f"file://{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout, "\n".join(x for x in done.stderr.splitlines() if "CONSOLE" in x)


needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium (apt install chromium)")


@needs_browser
@pytest.mark.parametrize("name", ["single", "comparison", "pictures"])
def test_nothing_is_wider_than_the_screen_of_a_phone(name, request, tmp_path):
    made = request.getfixturevalue(name)
    path = made[1] if isinstance(made, tuple) else made
    # Measured by a script in a copy without the policy, which would forbid it.
    source = re.sub(r"<meta http-equiv[^>]*>", "", path.read_text(encoding="utf-8"))
    copy = tmp_path / "copy.html"
    copy.write_text(source.replace("</body>", f"<script>{MEASURE}</script></body>"))
    shown, console = browse(copy, 500)  # the smallest window that it has
    assert console == "" and int(re.search(r'data-right="(\d+)"', shown)[1]) <= 400


@needs_browser
def test_a_browser_finds_no_error_and_would_run_no_script(single, tmp_path):
    shown, console = browse(single, 1400)
    assert console == "" and 'id="origin"' in shown
    copy = tmp_path / "copy.html"
    source = single.read_text(encoding="utf-8")
    copy.write_text(source.replace("</body>", "<script>document.title = 'owned'</script></body>"))
    shown, console = browse(copy, 1400)
    assert "<title>owned" not in shown and "Content Security Policy" in console


def test_which_words_z_predicts_is_on_the_page_of_text_models(single, comparison, pictures):
    for path, rows in ((single, 2), (comparison, 2)):
        text = path.read_text(encoding="utf-8")
        assert '<h2 id="words">' in text and '<a href="#words">Words</a>' in text
        assert text.count('class="shaded"') >= rows and "&lt;/s&gt;" in text
    assert 'id="words"' not in pictures[1].read_text(encoding="utf-8")


def test_shaded_words_are_escaped_and_long_texts_folded():
    few = ExplainedText(["<b>", " x"], -np.ones(2), np.array([2.0, -1.0]))
    html = shaded(few)
    assert "&lt;b&gt;" in html and "<b>" not in html and "<details" not in html
    assert html.count("--accent") == html.count("--changed") == 1
    many = ExplainedText(["word"] * 300, -np.ones(300), np.zeros(300))
    assert "<details" in shaded(many) and "more words" in shaded(many)
