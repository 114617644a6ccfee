"""The examples run and show what they claim."""

import math
import runpy
from pathlib import Path

import pytest
import torch

import textvae
from textvae.vae.priors import check_density

EXAMPLES = Path(__file__).parent.parent / "examples"


def main_of(name: str):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def test_your_own_model():
    card = main_of("your_own_model")(steps=300)
    assert card["mi"] > 1.0  # of ln 8 = 2.08 nats that name the topic
    assert card["collapse"] is None
    assert card["elbo"] <= card["iw"] + 0.05
    assert "MI" in str(card)
    assert card["units"] == card["tokens"] == 200 * 50 and 1 < card["ppl_iw"] < 200


def test_your_own_text_model(tmp_path, capsys):
    card = main_of("your_own_text_model")(tmp_path)
    assert card["mi"] > 3 and card["au"] == 6 and card["kl_estimated"]
    assert card["kl"] == pytest.approx(6, abs=0.7)  # the target
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12 and lines[5] != lines[11]  # samples, and the ends of an interpolation
    with pytest.raises(textvae.UserError, match="GRUTextVAE"):
        textvae.load(str(tmp_path / "run"))  # its own class has to load it


def test_the_flow_of_the_example_is_a_density():
    torch.manual_seed(0)
    flow = runpy.run_path(str(EXAMPLES / "your_own_text_model.py"))["FlowPrior"](3, couplings=3)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        check_density(flow)
        grid = torch.stack(torch.meshgrid(*[torch.linspace(-9, 9, 90)] * 3, indexing="ij"), -1)
        mass = flow.log_prob(grid).exp().sum() * (18 / 89) ** 3
    assert float(mass) == pytest.approx(1, abs=0.02)


def test_diagnose_any_vae():
    alive, collapsed = main_of("diagnose_any_vae")()
    assert alive.verdict in ("healthy", "partly collapsed")
    evidence = {row.key: row for row in alive.evidence}
    assert evidence["mi"].low > 0.8 and evidence["au"].low >= 1
    assert collapsed.verdict == "collapsed" and "ignores z" in collapsed.summary


class Identity(torch.nn.Module):
    """x (B, 2) with q(z|x) = N(x, 0.5), and any likelihood."""

    def forward(self, batch):
        return textvae.DiagGaussian(batch.x, torch.full_like(batch.x, math.log(0.5)))

    def log_prob(self, batch, z):
        return -(z**2).sum(-1)


def test_parts_of_the_kl_of_a_gaussian():
    kl_parts = runpy.run_path(str(EXAMPLES / "your_own_metrics.py"))["kl_parts"]
    torch.manual_seed(0)
    x = torch.randn(4000, 2) @ torch.tensor(
        [[1.0, 0.8], [0.0, 0.6]]
    )  # variances 1, correlation 0.8
    model = textvae.VAE(Identity(), Identity(), prior=2)
    card = textvae.evaluate(model, x.split(500), samples=0, own_metrics=[kl_parts])
    # q(z) is N(0, C) with variances 1.5 and covariances 0.8.
    determinant = 1.5**2 - 0.8**2
    assert card["total_correlation"] == pytest.approx(
        -0.5 * math.log(determinant / 1.5**2), abs=0.02
    )
    assert card["index_code_mi"] == pytest.approx(0.5 * math.log(determinant / 0.5**2), abs=0.03)
    assert card["dimension_kl"] == pytest.approx(0.5 - math.log(1.5), abs=0.02)
    parts = sum(card[part] for part in ("total_correlation", "index_code_mi", "dimension_kl"))
    assert parts == pytest.approx(card["kl"], abs=0.03)


def test_metrics_of_a_text_model(trained):
    functions = runpy.run_path(str(EXAMPLES / "your_own_metrics.py"))
    model = textvae.load(str(trained))
    texts = ["the dog sees a bird", "a cat"]
    own = [functions["kl_parts"], functions["length_kept"]]
    card = textvae.evaluate(model, model.batches(texts, 2), samples=1, own_metrics=own)
    assert card["length_kept"] in (0, 0.5, 1) and math.isfinite(card["total_correlation"])


def test_objectives_for_molecules(trained, tmp_path):
    pytest.importorskip("rdkit")
    from textvae.evaluation.search.text_objectives import load_objective

    place = str(EXAMPLES / "molecules.py")
    names = ("qed", "logp", "celecoxib")
    qed, logp, celecoxib = (load_objective(f"{place}:{name}", trained, None) for name in names)
    aspirin = "CC(=O)Oc1ccccc1C(=O)O"
    assert qed(aspirin) == pytest.approx(0.55, abs=0.01)  # Bickerton et al. 2012
    assert logp(aspirin) == pytest.approx(1.31, abs=0.01)
    for text in ("", "C1CC", "not a molecule"):
        assert qed(text) is logp(text) is celecoxib(text) is None
    assert celecoxib("FC(F)(F)c1nn(-c2ccc(S(N)(=O)=O)cc2)c(-c2ccc(C)cc2)c1") == 1.0
    assert 0.5 < celecoxib("Cc1ccc(-c2ccc(S(N)(=O)=O)cc2)cc1") < 0.6  # without the middle ring
    assert celecoxib("CCO") < 0.1
