"""Metrics of the user's own: on the card, in tables, in sweeps, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch

import textvae
from textvae.cli.main import main
from textvae.errors import UserError
from textvae.evaluation.comparison.compare import compare
from textvae.evaluation.evaluate import evaluate
from textvae.evaluation.own_metrics import load_own_metrics
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.vae import VAE

CODE = '''
import torch

def words_kept(model, batches):
    """Share of the sources whose first word is that of their reconstruction."""
    if not model.latent_dim:
        return None
    kept = []
    for batch in batches:
        sources = [model.tokenizer.decode(ids) for ids in batch.x.tolist()]
        texts = model.reconstruct(sources)
        kept += [a.split()[:1] == b.split()[:1] for a, b in zip(sources, texts)]
    return sum(kept) / len(kept)

def sizes(model, batches):
    rows = torch.cat([batch.index for batch in batches])
    return {"rows_seen": len(rows), "seen_again": torch.tensor(sum(map(len, batches)))}

def broken(model, batches):
    return 1 / 0

def taken(model, batches):
    return {"elbo": 1.0}

def leaving(model, batches):
    raise SystemExit(3)

def of_tables(model, batches):
    return {"source": 1.0}

def spread(model, batches):
    return {"x_spread": 1.0}

def error(model, batches):
    return {"elbo_se": 1.0}

def spaced(model, batches):
    return {"two words": 1.0}

def sizes_again(model, batches):
    return {"rows_seen": 1}

def text(model, batches):
    return "good"

def alone(model):
    return 1.0

unnamed = lambda model, batches: 1.0
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "my_metrics.py"
    path.write_text(CODE, encoding="utf-8")
    return str(path)


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


class Doubling(torch.nn.Module):
    """x (B, 1) with q(z|x) = N(2x, 1) and p(x|z) = N(z, 1)."""

    def forward(self, batch):
        return DiagGaussian(2 * batch.x, torch.zeros_like(batch.x))

    def log_prob(self, batch, z):
        return torch.distributions.Normal(z, 1.0).log_prob(batch.x).sum(-1)


def largest_mean(model, batches):
    """The largest posterior mean, twice: the batches can be read again."""
    first = max(float(model.posterior(batch).mean.max()) for batch in batches)
    return {"largest": first, "again": max(float(model.posterior(b).mean.max()) for b in batches)}


def modes(model, batches):
    return {"training": model.training, "gradients": torch.is_grad_enabled()}


def test_values_by_hand_in_evaluation_mode_without_gradients():
    model = VAE(Doubling(), Doubling(), 1).train()
    x = torch.tensor([[0.5], [3.0], [-1.0]])
    card = evaluate(model, x.split(2), samples=2, own_metrics=[largest_mean, modes])
    assert card["largest"] == card["again"] == 6.0
    assert card["training"] == card["gradients"] == 0.0 and model.training
    assert "again" in str(card) and json.loads(json.dumps(card)) == card
    plain = evaluate(model, x.split(2), samples=2)
    assert {key: card[key] for key in plain if key != "seconds"} == {
        key: value for key, value in plain.items() if key != "seconds"
    }


def test_a_metric_that_draws_random_numbers_changes_nothing_else_and_is_seeded():
    def noisy(model, batches):
        return float(torch.randn(()))

    model, x = VAE(Doubling(), Doubling(), 1), torch.zeros(4, 1)
    cards = [evaluate(model, x.split(2), samples=2, own_metrics=[noisy]) for _ in range(2)]
    assert cards[0]["noisy"] == cards[1]["noisy"]
    assert cards[0]["elbo"] == evaluate(model, x.split(2), samples=2)["elbo"]


def test_no_metric_influences_another():
    def noisy(model, batches):
        return float(torch.randn(()))

    def careless(model, batches):
        model.train()
        torch.manual_seed(7)

    model, x = VAE(Doubling(), Doubling(), 1), torch.zeros(4, 1)
    alone = evaluate(model, x.split(2), samples=2, own_metrics=[noisy, modes])
    after = evaluate(model, x.split(2), samples=2, own_metrics=[careless, noisy, modes])
    assert after["noisy"] == alone["noisy"] and after["training"] == alone["training"] == 0


def test_numbers_of_any_kind_and_what_json_does_not_have(caplog):
    def kinds(model, batches):
        return {
            "truth": np.bool_(True),
            "whole": np.int32(3),
            "zero_d": np.array(2.5),
            "one": torch.ones(1),
            "none": None,
            "nan": float("nan"),
            "inf": np.inf,
        }

    model, x = VAE(Doubling(), Doubling(), 1), torch.zeros(4, 1)
    card = evaluate(model, x.split(2), samples=2, own_metrics=[kinds])
    assert [card[key] for key in ("truth", "whole", "zero_d", "one")] == [1, 3, 2.5, 1]
    assert card["none"] is card["nan"] is card["inf"] is None
    assert "returned nan for nan" in caplog.text and "returned inf for inf" in caplog.text
    json.dumps(card, allow_nan=False)


def test_the_card_the_tables_and_the_readme_have_it(run, file, capsys):
    options = ["--samples", "2", "--generations", "3", "--own-metric"]
    names = [f"{file}:words_kept", f"{file}:sizes"]
    assert main(["evaluate", str(run), *options, *names]) == 0
    assert "words kept" in capsys.readouterr().out
    card = json.loads((run / "metrics" / "test.json").read_text())
    assert 0 <= card["words_kept"] <= 1
    assert card["rows_seen"] == card["seen_again"] == card["count"]
    assert card["own_metrics"]["rows_seen"] == "my_metrics.sizes"
    assert "words kept" in (run / "README.md").read_text(encoding="utf-8")
    table = compare([run], columns=["words_kept", "mi"])
    assert table.startswith("| model | words kept |")
    assert textvae.results(run, columns=["words_kept"])[0]["words_kept"] == card["words_kept"]
    with pytest.raises(UserError, match="no metric 'word_kept'; did you mean words_kept"):
        compare([run], columns=["word_kept"])


def test_a_metric_without_meaning_is_a_dash(language_model, file):
    metrics = load_own_metrics([f"{file}:words_kept", f"{file}:sizes"])
    model = textvae.load(str(language_model))
    card = evaluate(model, model.batches(["a b"], 1), samples=1, own_metrics=metrics)
    assert card["words_kept"] is None and card["rows_seen"] == 1
    assert "words kept" not in str(card)


def test_a_standard_error_is_shown_with_its_metric(run):
    def kept(model, batches):
        return {"kept": 0.25, "kept_se": 0.125, "other_se": 0.5}

    model = textvae.load(str(run))
    card = evaluate(model, model.batches(["a b"], 1), samples=1, own_metrics=[kept])
    (line,) = [line for line in str(card).splitlines() if "kept" in line]
    assert "0.250 ± 0.125" in line
    assert "kept se" not in str(card) and "other se" in str(card)
    assert "| 0.250 ± 0.125 |    0.500 |" in compare([card], columns=["kept", "other_se"])


def test_numbers_that_a_card_cannot_hold_or_a_table_not_show(run, caplog):
    def extreme(model, batches):
        return {"huge": 1e200, "tiny": 1.2e-7}

    model = textvae.load(str(run))
    card = evaluate(model, model.batches(["a b"], 1), samples=1, own_metrics=[extreme])
    assert card["huge"] is None and "returned 1e+200 for huge" in caplog.text
    assert "1.2e-07" in compare([card], columns=["tiny"])


def test_the_mean_over_seeds_has_a_spread(run, file):
    metrics = load_own_metrics([f"{file}:sizes"])
    model = textvae.load(str(run))
    card = evaluate(model, model.batches(["a b"], 1), samples=1, own_metrics=metrics)
    cards = [{**card, "model": f"m-seed-{n}", "rows_seen": n} for n in (1, 3)]
    table = compare(cards, columns=["rows_seen"])
    assert "1.000" in table and "3.000" in table
    averaged = textvae.evaluation.comparison.seeds.average_cards(cards)
    assert averaged["rows_seen"] == 2 and averaged["rows_seen_spread"] == pytest.approx(2**0.5)
    edited = [cards[0], {**cards[1], "own_metric_code": {"my_metrics.sizes": "of other code"}}]
    assert "different code" not in table
    assert "**Computed by different code**: rows_seen, seen_again." in compare(edited)
    with pytest.raises(UserError, match="rows_seen, seen_again of the runs of m: computed by diff"):
        textvae.evaluation.comparison.seeds.average_cards(edited)
    del cards[1]["rows_seen"], cards[1]["own_metrics"]
    other = textvae.evaluation.comparison.seeds.average_cards(cards)
    assert "rows seen" not in compare([other], columns=None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "division by zero (my_metrics.py, line"),
        ("taken", "elbo is a metric or a setting of every card: choose another name"),
        ("leaving", "SystemExit"),
        ("of_tables", "source is a metric or a setting of every card: choose another name"),
        ("spread", "x_spread is a metric or a setting of every card: choose another name"),
        ("error", "elbo_se is a metric or a setting of every card: choose another name"),
        ("spaced", "'two words': use letters, digits, and _"),
        ("text", "returned a str for text: return a number"),
        ("alone", "is called with (model, batches)"),
        ("unnamed", "needs a name: define it with def"),
        ("missing", "has no 'missing'"),
    ],
)
def test_mistakes_are_one_line_and_leave_the_card(run, file, name, message, capsys):
    before = (run / "metrics").exists()
    assert main(["evaluate", str(run), "--own-metric", f"{file}:{name}"]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert (run / "metrics" / "test.json").exists() <= before


def test_two_metrics_of_one_name_are_refused(run, file):
    model = textvae.load(str(run))
    both = load_own_metrics([f"{file}:sizes", f"{file}:sizes_again"])
    with pytest.raises(UserError, match="both return rows_seen: rename one"):
        evaluate(model, model.batches(["a b"], 1), samples=1, own_metrics=both)
    with pytest.raises(UserError, match="two metrics of your own are called sizes"):
        load_own_metrics([f"{file}:sizes", f"{file}:sizes"])
    with pytest.raises(TypeError, match="must be a list of functions"):
        evaluate(model, model.batches(["a b"], 1), own_metrics=both[0])


def test_a_sweep_evaluates_again_only_if_the_metric_is_another(corpus, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def one(model, batches):\n    return 1.0\n", encoding="utf-8")
    sizes = {"latent_dim": 0, "injection": "none", "embedding_dim": 4, "decoder_hidden": 4}
    options = {
        "out": tmp_path / "sweep",
        "data": {"dir": str(corpus), "tokenized": True},
        "model": sizes,
        "train": {"max_steps": 2, "samples": 0, "threads": 1},
        "samples": 1,
        "generations": 0,
        "with_report": False,
    }
    done = textvae.sweep(**options, own_metrics=[f"{file}:one"])
    path = done.runs[0] / "metrics" / "test.json"
    assert json.loads(path.read_text())["one"] == 1.0 and "|   one |" in done.table
    stamp = path.stat().st_mtime_ns
    for metrics in ([f"{file}:one"], []):
        textvae.sweep(**options, own_metrics=metrics)
        assert path.stat().st_mtime_ns == stamp
    file.write_text("def one(model, batches):\n    return 2.0\n", encoding="utf-8")
    textvae.sweep(**options, own_metrics=[f"{file}:one"])
    assert json.loads(path.read_text())["one"] == 2.0
    with pytest.raises(UserError, match="give the metrics of your own that the sweep has"):
        textvae.training.sweeps.job.run_job(options["out"], done.runs[0].name)
