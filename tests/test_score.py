"""Scores of single examples: against the card, and the regret against its known value."""

import io
import json
import math
import sys
import tempfile
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import in_child
from torch import nn
from torch.distributions import Normal

import textvae
from textvae.cli.main import main
from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.evaluation.scoring import score as scoring
from textvae.evaluation.scoring.regret import SIZES
from textvae.evaluation.scoring.score import score, score_file
from textvae.vae.batch import Batch
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.vae import VAE

LOADINGS = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.0, 2.0]], dtype=torch.float64)
NOISE_SD = 1.5
PRECISION = 1 + LOADINGS.square().sum(0) / NOISE_SD**2  # (Z,)
# Small steps, because each uses a new draw of z.
STEPS = Inference(lr=0.012, momentum=0.9, clip=0.0, clip_per="example", loss_per="example")


class LinearDecoder(nn.Module):
    """p(x|z) = N(Wz, s^2 I); the columns of W are orthogonal: the exact posterior is diagonal."""

    def __init__(self):
        super().__init__()
        self.loadings = nn.Parameter(LOADINGS)

    def log_prob(self, batch, z):
        p = Normal(z @ self.loadings.t(), NOISE_SD, validate_args=False)  # steps may diverge
        return p.log_prob(batch.x).sum(-1)


class WrongEncoder(nn.Module):
    """The exact posterior, moved by ``shift`` and widened by ``widen`` (N,) for each row."""

    def __init__(self, shift, widen):
        super().__init__()
        self.shift, self.widen = shift[:, None], widen[:, None]

    def forward(self, batch):
        mean = batch.x @ LOADINGS / NOISE_SD**2 / PRECISION
        logvar = -PRECISION.log().expand_as(mean)
        return DiagGaussian(mean + self.shift[batch.index], logvar + self.widen[batch.index])


def linear_model(shift, widen):
    model = VAE(WrongEncoder(torch.tensor(shift), torch.tensor(widen)), LinearDecoder(), 2)
    x = torch.randn(len(shift), 3, generator=torch.Generator().manual_seed(0)).double()
    return model.double(), Batch(x)


def test_regret_is_the_kl_from_the_encoder_to_the_exact_posterior():
    rows = 60  # of each kind, to average over the draws
    shift = np.repeat([0.0, 0.5, -1.0, 2.0], rows).tolist()
    widen = np.repeat([0.0, 0.0, 0.7, -1.0], rows).tolist()
    model, batch = linear_model(shift, widen)
    exact, _ = linear_model([0.0] * len(shift), [0.0] * len(shift))
    gap = model.posterior(batch).kl_to(exact.posterior(batch)).sum(-1).view(4, rows).mean(1)
    assert gap[0] == 0 and (gap[1:] > 0.5).all()
    found = score(model, [batch], samples=100, regret_steps=300, inference=STEPS)
    regret = found["regret"].reshape(4, rows).mean(1)
    assert regret == pytest.approx(gap.numpy(), abs=0.06)
    assert 0 <= regret[0] < 0.005  # nothing beats the exact posterior


def test_regret_is_what_refinement_adds_to_the_elbo():
    model, batch = linear_model([1.0, -2.0], [0.0, 0.5])
    found = score(model, [batch], samples=5, regret_steps=7, inference=STEPS)
    plain = score(model, [batch], samples=5, regret_steps=0, inference=STEPS)
    refine = replace(STEPS, method="semi_amortized", steps=7, lr=STEPS.lr * SIZES[0])
    refined = score(model, [batch], samples=5, regret_steps=0, inference=refine)
    assert "regret" not in plain
    assert found["regret"] == pytest.approx(refined["elbo"] - plain["elbo"])
    assert (found["regret"] > 0).all()


def test_regret_starts_from_the_encoder_even_if_the_elbo_is_refined():
    model, batch = linear_model([1.0, -2.0], [0.0, 0.5])
    refine = replace(STEPS, method="semi_amortized", steps=20)
    options = {"samples": 5, "regret_steps": 7}
    refined = score(model, [batch], **options, inference=refine)
    plain = score(model, [batch], **options, inference=STEPS)
    assert (refined["elbo"] > plain["elbo"]).all()
    assert refined["regret"] == pytest.approx(plain["regret"])


def test_steps_that_diverge_are_repeated_at_a_smaller_size():
    model, batch = linear_model([1.0, -2.0, 0.0], [0.0, 0.5, 0.0])
    options = {"samples": 50, "regret_steps": 100}
    expected = score(model, [batch], **options, inference=STEPS)["regret"]
    too_large = replace(STEPS, lr=1000 * STEPS.lr)
    found = score(model, [batch], **options, inference=too_large)["regret"]
    assert (found[:2] > expected[:2] / 2).all() and found[2] >= 0
    single = Batch(batch.x[1:2], index=batch.index[1:2])
    alone = score(model, [single], **options, inference=too_large)["regret"]
    assert alone == pytest.approx(found[1:2])
    hopeless = replace(STEPS, lr=1e30 * STEPS.lr)
    assert score(model, [batch], **options, inference=hopeless)["regret"].tolist() == [0, 0, 0]


def test_one_row_does_not_depend_on_the_others():
    model, batch = linear_model([1.0, -2.0, 0.3], [0.0, 0.5, 0.1])
    whole = score(model, [batch], samples=5, regret_steps=7, inference=STEPS)
    for row in range(3):
        single = Batch(batch.x[row : row + 1], index=torch.tensor([row]))
        found = score(model, [single], samples=5, regret_steps=7, inference=STEPS)
        assert {key: value[0] for key, value in found.items()} == pytest.approx(
            {key: value[row] for key, value in whole.items()}
        )


def rows_of(run, source, **options):
    return list(score_file(run, source, **{"samples": 4, "regret_steps": 3, **options}))


def numbers(rows):
    return [{k: v for k, v in row.items() if not isinstance(v, str)} for row in rows]


def assert_same(found, expected):
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    for one, other in zip(numbers(found), numbers(expected), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def scores(trained, corpus):
    return rows_of(trained, corpus / "test.txt", device="cpu")


def test_the_means_are_those_of_the_metrics_card(trained, scores):
    card = json.loads((trained / "metrics" / "test.json").read_text())
    assert len(scores) == card["count"]
    for key in ("elbo", "iw", "rec", "kl"):
        assert np.mean([row[key] for row in scores]) == pytest.approx(card[key], rel=1e-5)
    for key in ("units", "bytes"):
        assert sum(row[key] for row in scores) == card[key]
    nats = sum(row["units"] * math.log(row["ppl_iw"]) for row in scores)
    assert math.exp(nats / card["units"]) == pytest.approx(card["ppl_iw"], rel=1e-5)
    bits = sum(row["bytes"] * row["bits_per_byte_iw"] for row in scores)
    assert bits / card["bytes"] == pytest.approx(card["bits_per_byte_iw"], rel=1e-5)


def test_each_row_is_an_example_of_the_evaluation(trained, corpus, scores):
    from textvae.evaluation.open_run import open_run
    from textvae.evaluation.per_example import collect

    opened = open_run(trained, device="cpu")
    split = opened.split("test")
    with torch.no_grad():
        stats = collect(opened.model, [split.batch(np.arange(20))], 4, seed=0)
    assert [row["iw"] for row in scores] == pytest.approx(stats.bound.tolist(), rel=1e-5)
    elbo = (stats.rec - stats.kl.sum(-1)).tolist()
    assert [row["elbo"] for row in scores] == pytest.approx(elbo, rel=1e-5)
    assert [row["row"] for row in scores] == list(range(20))
    assert [row["text"] for row in scores] == [split.caption(i) for i in range(20)]
    assert [row["label"] for row in scores] == [str(i % 3) for i in range(20)]


def test_rows_count_the_texts_that_are_too_long_to_be_scored(tiny, tmp_path):
    run, file = tmp_path / "run", tmp_path / "new.txt"
    options = ["--train.max_steps", "1", "--data.max_length", "7", "--data.long", "drop"]
    assert in_child(["train", "--out", str(run), *tiny, *options]) == 0
    file.write_text("0\tthe cat\n1\tthe cat sees the dog and the bird\n2\tthe dog\n")
    assert [(row["row"], row["text"]) for row in rows_of(run, file)] == [
        (0, "the cat"),
        (2, "the dog"),
    ]


def test_scores_depend_neither_on_the_batch_size_nor_on_the_chunks(
    trained, corpus, scores, monkeypatch
):
    monkeypatch.setattr(scoring, "CHUNK", 6)
    again = rows_of(trained, corpus / "test.txt", batch_size=4)
    assert_same(again, scores)
    other_seed = rows_of(trained, corpus / "test.txt", seed=1)
    assert other_seed[0]["iw"] != scores[0]["iw"]


def test_a_file_is_scored_in_bounded_memory(trained, corpus, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK", 6)
    sizes = []
    monkeypatch.setattr(
        scoring,
        "score",
        lambda model, batches, **_: (
            sizes.append(sum(map(len, batches))) or {"row": np.arange(0), "iw": np.zeros(0)}
        ),
    )
    assert rows_of(trained, corpus / "test.txt") == []
    assert sizes == [6, 6, 6, 2]


def test_a_language_model_has_neither_kl_nor_regret(language_model, corpus):
    (row, *_) = rows_of(language_model, corpus / "test.txt")
    assert not {"kl", "regret"} & row.keys()
    assert row["elbo"] == row["iw"] == row["rec"]


def test_a_saved_model_scores_without_a_run(trained, corpus, scores, tmp_path):
    textvae.load(str(trained)).save_pretrained(tmp_path / "model")
    again = rows_of(tmp_path / "model", corpus / "test.txt")
    assert [row["ppl_iw"] for row in again] == pytest.approx([row["ppl_iw"] for row in scores])


def test_the_command_prints_a_table_or_json(trained, corpus, scores, capsys):
    argv = ["score", str(trained), str(corpus / "test.txt"), "--samples", "4"]
    argv += ["--regret-steps", "3"]
    assert main(argv) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:5] == ["ELBO", "IW", "rec", "KL", "regret"]
    assert len(lines) == 20 and lines[1].endswith(scores[1]["text"])
    assert float(lines[1].split()[0]) == pytest.approx(scores[1]["elbo"], abs=0.006)
    assert main([*argv, "--format", "jsonl"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert_same(found, scores)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_scores_in_a_file(trained, corpus, scores, ending, tmp_path, capsys):
    out = tmp_path / f"scores.{ending}"
    argv = ["score", str(trained), str(corpus / "test.txt"), "--out", str(out)]
    assert main([*argv, "--samples", "4", "--regret-steps", "3"]) == 0
    assert capsys.readouterr().out == f"wrote 20 rows to {out}\n"
    if ending == "jsonl":
        found = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        found = pyarrow.parquet.read_table(out).to_pylist()
    assert_same(found, scores)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_failure_leaves_no_file(trained, corpus, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(scoring, "score", broken)
    out = tmp_path / "scores.jsonl"
    argv = ["score", str(trained), str(corpus / "test.txt"), "--out", str(out)]
    assert main(argv) == 2
    assert not list(tmp_path.iterdir())


def test_standard_input_has_one_text_per_line(trained, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "in").write_text("the cat sees the tree\n\na\tdog\n")

    def redirect():
        sys.stdin = (tmp_path / "in").open()
        tempfile.tempdir = str(tmp_path)  # the child ends without cleaning up

    argv = ["score", str(trained), "-", "--samples", "2", "--format", "jsonl"]
    assert in_child(argv, redirect) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["the cat sees the tree", "a\tdog"]
    assert not list((tmp_path / "cache").rglob("*.*"))  # nothing of it is kept
    (private,) = tmp_path.glob("textvae-*")
    assert private.stat().st_mode & 0o777 == 0o700 and list(private.rglob("*.arrow"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{run}", "none.txt"], "none.txt: no such file"),
        (["{run}", "{file}", "--out", "a.csv"], "tables are written as .jsonl or .parquet"),
        (["{run}", "{file}", "--samples", "0"], "--samples 0: must be above 0"),
        (["{run}", "{file}", "--positive", "1"], "add --labels"),
        (["{run}", "{file}", "--labels"], "choose the label of the anomalies with --positive: 0"),
        (["{run}", "{file}", "--labels", "--positive", "x"], "choose from 0, 1, 2"),
        (["{run}", "-", "--labels"], "this needs labels"),
        (["{run}", "{file}", "--data.text_column", "a"], "files have columns"),
        (["{run}", "{file}", "--data.format", "doc"], "format 'doc': must be auto or one of"),
        (["nowhere", "{file}"], "nowhere"),
    ],
)
def test_what_is_refused(trained, corpus, argv, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a cat\n")))
    words = [word.format(run=trained, file=corpus / "test.txt") for word in argv]
    assert main(["score", *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("textvae: ") and message in error


def test_options_of_the_python_function_are_checked(trained, corpus):
    for options in ({"samples": 0}, {"regret_steps": -1}, {"batch_size": 0}):
        with pytest.raises(UserError, match="at least"):
            rows_of(trained, corpus / "test.txt", **options)


def test_texts_are_scored_as_in_a_file(trained, tmp_path):
    texts = ["a b c", "b a", "c " * 300]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    model = textvae.load(str(trained))
    options = {"samples": 3, "regret_steps": 2}
    found = textvae.score(model, texts, **options)
    rows = list(textvae.score_file(trained, tmp_path / "texts.txt", **options))
    for key in ("iw", "kl", "regret", "ppl_iw", "bits_per_byte_iw"):
        assert found[key] == pytest.approx([row[key] for row in rows], rel=1e-4)
    with pytest.raises(TypeError, match="run must be the path of a run folder, not a TextVAE"):
        textvae.score_file(model, tmp_path / "texts.txt")


def test_words_are_counted_as_the_run_counts_them_for_every_tokenizer(tiny, tmp_path):
    texts = ["it isn't so.", "yes, it is"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    options = ["--tokenizer.kind", "char", "--train.max_steps", "1"]
    for tokenized, expected in (("true", [4, 4]), ("false", [6, 5])):
        run = tmp_path / tokenized
        choice = ["--data.tokenized", tokenized]
        assert in_child(["train", "--out", str(run), *tiny, *options, *choice]) == 0
        model = textvae.load(str(run))
        (batch,) = model.counted_batches(texts, 2)
        assert batch.units[batch.index.argsort()].tolist() == expected
        model.save_pretrained(run / "alone")
        for rows in (
            rows_of(run, tmp_path / "texts.txt"),
            rows_of(run / "alone", tmp_path / "texts.txt"),
        ):
            assert [row["ppl_iw"] for row in rows] == pytest.approx(
                [math.exp(-row["iw"] / units) for row, units in zip(rows, expected, strict=True)]
            )


def test_a_blank_text_alone_has_the_scores_that_it_has_among_others(trained):
    model, options = textvae.load(str(trained)), {"samples": 3, "regret_steps": 0}
    alone = textvae.score(model, [""], **options)
    among = textvae.score(model, ["", "a cat sees the tree"], **options)
    assert alone.keys() == among.keys()
    assert alone["bits_per_byte_iw"][0] == among["bits_per_byte_iw"][0] == math.inf
