"""``textvae bounds``: what lies between the bounds on log p(x), for models where it is known."""

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_estimators import LOADINGS, NOISE_SD, OFFSET, Language, LinearGaussian, batch_of
from torch import nn

import textvae
from textvae.cli.bounds import parser
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.bounds.result import Bounds
from textvae.text.decode.generate import generate
from textvae.text.tokenizers import EOS

FEW = ["--limit", "6", "--samples", "5", "--chains", "2", "--steps", "4", "--regret-steps", "5"]
FEW += ["--simulated", "5"]


class Known(LinearGaussian, nn.Module):
    """A model whose best diagonal Gaussian is the exact posterior: nothing is left then."""

    device, decoder = torch.device("cpu"), nn.Identity()

    def __init__(self, **wrong):
        nn.Module.__init__(self)
        LinearGaussian.__init__(self, **wrong)

    def simulate(self, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        noise = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        yield batch_of(z @ LOADINGS.t() + OFFSET + NOISE_SD * noise), z


@pytest.fixture(scope="module")
def found() -> Bounds:
    model = Known(shift=0.4, widen=-0.7)
    batch = next(model.simulate(60, seed=1))[0]
    with torch.random.fork_rng():
        return textvae.bounds(model, [batch], samples=100, simulated=40, regret_steps=200)


def test_the_gaps_of_a_known_model(found):
    """log p(x) is known, the approximation gap is 0, and the amortization gap is the rest."""
    model = Known(shift=0.4, widen=-0.7)
    truth = model.log_marginal(next(model.simulate(60, seed=1))[0].x).numpy()
    gaps = found.gaps()
    assert found.ais.mean() == pytest.approx(truth.mean(), abs=0.03)
    assert found.elbo.mean() < found.best.mean() < truth.mean() + 0.02
    assert gaps["amortization"].value == pytest.approx((truth - found.elbo).mean(), abs=0.1)
    assert abs(gaps["approximation"].value) < 0.15 and 0 <= gaps["iw"].value < 0.3
    assert abs(gaps["unknown"].value) < 0.1
    interval = gaps["amortization"]
    assert interval.low < interval.value < interval.high


def test_what_it_says(found):
    text = str(found)
    assert text.startswith("60 examples; nats per example")
    for part in ("IW, K = 100", "AIS, 5 chains, 25 steps", "amortization gap", "left by AIS"):
        assert part in text
    record = found.to_dict()
    assert record["elbo"] == pytest.approx(found.elbo.mean())
    assert record["ppl_ais"] == pytest.approx(np.exp(-found.ais.mean()))  # one word per example
    assert record["simulated"] == 40 and 0.3 < record["accepted"] <= 1


def made(**bounds) -> Bounds:
    """Bounds of three examples, 0 unless they are given."""
    given = {name: np.full(3, value) for name, value in bounds.items()}
    zeros = {name: np.zeros(3) for name in ("elbo", "best", "iw", "ais", "units")}
    settings = {"samples": 9, "chains": 1, "steps": 1, "accepted": None, "refined": None}
    empty = {"requested": 4, "lower": np.zeros(0), "upper": np.zeros(0)}
    return Bounds(**{**zeros, **given, **settings, **empty})


def test_bounds_that_are_too_loose_say_so():
    low = made(ais=-1.0)
    assert "AIS is below another bound: increase --steps" in str(low) and "PPL" not in str(low)
    assert "unknown" not in low.gaps() and "no generated text ended" in str(low)
    few = made(best=1.0, elbo=-1.0)
    assert "IW is below an ELBO: increase --samples" in str(few)
    assert few.gaps()["approximation"].value == 0 and few.gaps()["iw"].value == 1
    unsought = replace(made(elbo=-1.0), best=None)
    assert "inference" in unsought.gaps() and "amortization" not in str(unsought)
    refined = replace(made(elbo=-2.0, best=0.0), refined=np.full(3, -1.0))
    assert "ELBO, encoder alone" in str(refined) and "ELBO, refined" in str(refined)


def test_the_same_numbers_for_every_batch_size():
    model = Known(shift=0.4)
    batch = next(model.simulate(7, seed=1))[0]
    parts = list(batch.x.split(3))
    few = {"samples": 5, "chains": 2, "steps": 3, "regret_steps": 4}
    whole = textvae.bounds(model, [batch], **few)
    split = textvae.bounds(model, parts, **few)
    for name in ("elbo", "best", "iw", "ais"):
        assert getattr(whole, name) == pytest.approx(getattr(split, name))


def test_models_that_it_does_not_apply_to(language_model, capfd):
    with pytest.raises(UserError, match="its log p"):
        textvae.bounds(Language(), [torch.zeros(2, 3)])
    assert main(["bounds", str(language_model)]) == 2
    assert "a language model needs no bounds" in capfd.readouterr().err
    sphere = textvae.VAE(nn.Identity(), nn.Identity(), textvae.UniformSphere(3))
    sphere.posterior = sphere.log_likelihood = None
    with pytest.raises(UserError, match="has no method simulate"):
        textvae.bounds(LinearGaussian(), [torch.zeros(2, 3)], simulated=3)
    with pytest.raises(UserError, match="lies on a sphere"):
        textvae.bounds(sphere, [torch.zeros(2, 3)])


def test_the_command(trained, tmp_path, capfd):
    run = Path(shutil.copytree(trained, tmp_path / "vae"))  # other tests use this one
    assert main(["bounds", str(run), *FEW, "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    saved = json.loads((run / "metrics" / "test-bounds.json").read_text())
    assert record["elbo"] <= record["best"] and record["count"] == 6 and record["simulated"] >= 1
    assert saved.items() >= record.items() and saved["seed"] == 0
    assert main(["bounds", str(run), *FEW]) == 0
    assert "amortization gap" in capfd.readouterr().out


def test_the_command_has_the_defaults_of_the_function():
    defaults = parser().get_defaults()
    for name, parameter in inspect.signature(textvae.bounds_run).parameters.items():
        if parameter.default is not inspect.Parameter.empty and name in defaults:
            assert defaults[name] == parameter.default, name


def test_a_report_has_the_bounds_of_the_last_weights(trained, tmp_path):
    run, page = Path(shutil.copytree(trained, tmp_path / "vae")), tmp_path / "page.html"
    few = {"samples": 3, "chains": 2, "steps": 2, "regret_steps": 0}
    textvae.bounds_run(run, limit=1, simulated=1, seed=2, **few)  # of which there are no intervals
    textvae.report(run, page, limit=10, samples=2)
    assert "How tight the bounds are" in page.read_text()
    textvae.bounds_run(run, limit=5, simulated=0, **few)
    textvae.report(run, page, limit=10, samples=2)
    text = page.read_text()
    assert "How tight the bounds are" in text and "(K = 3)" in text
    record = run / "metrics" / "test-bounds.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"weights": "others"}))
    textvae.report(run, page, limit=10, samples=2)
    assert "How tight the bounds are" not in page.read_text()


def test_texts_of_a_model_come_with_their_z(trained):
    model = textvae.load(trained)
    whole = list(model.simulate(9, seed=2, batch_size=9))
    parts = list(model.simulate(9, seed=2, batch_size=4))
    z = torch.cat([z for _, z in parts])
    assert torch.equal(z, whole[0][1]) and len(z) <= 9
    rows = torch.cat([batch.index for batch, _ in parts])
    assert torch.equal(z, model.draw_z(9, 2)[rows])
    for batch, own in parts:
        assert len(own) == len(batch) and batch.lengths.max() <= model.config["max_length"] + 1
        for row, z, i in zip(batch.x.tolist(), own, batch.index.tolist(), strict=True):
            longest = model.config["max_length"] + 1
            drawn = generate(
                model.decoder,
                z[None],
                max_new_tokens=longest,
                do_sample=True,
                seed=2,
                first_row=i,
                allow_all=True,
            )[0].tolist()
            assert row[1 : row.index(EOS)] == drawn[: drawn.index(EOS)]
