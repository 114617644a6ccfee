"""The examples run and show what they claim."""

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
