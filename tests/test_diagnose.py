"""Models made to have each illness: the diagnosis names it."""

import csv
import json
import math
import shlex
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import TINY, in_child
from torch import nn
from torch.distributions import Normal

import textvae
from textvae.cli.diagnose import FAIL_ON
from textvae.config.inference import Inference
from textvae.evaluation.diagnosis.history import History
from textvae.evaluation.diagnosis.judge import MIN_EXAMPLES, SEVERITY, dimension_states, judge
from textvae.evaluation.diagnosis.remedies import warning
from textvae.evaluation.diagnosis.result import Diagnosis
from textvae.evaluation.diagnosis.saved_diagnosis import load_diagnosis
from textvae.evaluation.diagnosis.training_state import Training
from textvae.evaluation.examination import examine
from textvae.evaluation.intervals import Interval, of_share
from textvae.evaluation.per_example import ExampleStats
from textvae.evaluation.symptoms import _columns, _widen
from textvae.vae.batch import Batch
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.vae import VAE

GAINS = (2.0, 2.0, 2.0, 2.0)
COUNT = 300


class Reads(nn.Module):
    """p(x_d|z) = N(gain_d z_d, 1)."""

    def __init__(self, gains):
        super().__init__()
        self.gains = nn.Parameter(torch.tensor(gains))

    def log_prob(self, batch, z):
        return Normal(self.gains * z, 1.0).log_prob(batch.x).sum(-1)


class Writes(nn.Module):
    """The posterior of ``Reads`` with these gains, moved by ``shift``."""

    def __init__(self, gains, shift=0.0):
        super().__init__()
        self.gains, self.shift = nn.Parameter(torch.tensor(gains)), shift

    def forward(self, batch):
        precision = 1 + self.gains.square()
        mean = batch.x * self.gains / precision + self.shift
        return DiagGaussian(mean, (-precision.log()).expand_as(mean))


def data(gains=GAINS, count=COUNT, mean=0.0):
    """Draws from ``Reads``, with z ~ N(mean, 1)."""
    generator = torch.Generator().manual_seed(0)
    z = mean + torch.randn(count, len(gains), generator=generator)
    return torch.tensor(gains) * z + torch.randn(count, len(gains), generator=generator)


def model(writes=GAINS, reads=GAINS, **options):
    return VAE(Writes(writes, **options), Reads(reads), len(reads))


def diagnose(model, x, size=64, **options):
    return textvae.diagnose(model, x.split(size), samples=5, **options)


def states(found):
    return [row.state for row in found.dimensions]


def test_a_model_that_is_well():
    found = diagnose(model(), data())
    assert found.verdict == "healthy" and found.remedies == ()
    assert states(found) == ["alive"] * 4
    evidence = {row.key: row for row in found.evidence}
    exact = 4 * 0.5 * math.log(1 + 2.0**2)
    assert evidence["mi"].low < exact < evidence["mi"].high + 0.3  # 300 posteriors are not all
    assert evidence["shuffle_gap"].value > evidence["mi"].value
    assert (evidence["au"].low, evidence["au"].value, evidence["au"].high) == (4, 4, 4)


def test_posterior_collapse():
    nothing = (0.0,) * 4
    found = diagnose(model(nothing, nothing), data(nothing))
    assert found.verdict == "collapsed"
    assert "0 of 4 dimensions active" in found.summary
    assert states(found) == ["dead"] * 4
    assert found.remedies[0].files == tuple(
        f"recipes/methods/{name}.yaml" for name in ("skip_vae", "autoencode", "free_bits")
    )
    assert found.remedies[0].command is None  # there is no run to train again


def test_a_posterior_that_left_the_prior_for_one_place_is_collapsed():
    nothing = (0.0,) * 4
    found = diagnose(model(nothing, GAINS, shift=3.0), data())
    assert found.verdict == "collapsed"
    assert "to the same place for every x (KL 18.00 nats, MI 0.00 nats" in found.summary


@pytest.mark.parametrize("dead", [0, 2])
def test_one_dead_dimension(dead):
    gains = tuple(0.0 if d == dead else 2.0 for d in range(4))
    found = diagnose(model(gains, gains), data(gains))
    assert found.verdict == "partly collapsed"
    assert found.summary.startswith(f"1 of 4 dimensions is dead ({dead})")
    assert [row.number for row in found.dimensions if row.state == "dead"] == [dead]
    assert any(remedy.options == ("--model.latent_dim", "3") for remedy in found.remedies)


def test_one_dead_dimension_of_many_is_no_illness():
    gains = (2.0,) * 11 + (0.0,)
    found = diagnose(model(gains, gains), data(gains))
    assert found.verdict == "healthy" and states(found)[11] == "dead"


def test_a_decoder_that_ignores_z():
    found = diagnose(model(GAINS, (0.0,) * 4), data())
    assert found.verdict == "unread"
    assert "replacing z with that of another example costs only 0.00 nats" in found.summary
    assert states(found) == ["unread"] * 4
    assert found.remedies[0].files == ("recipes/methods/skip_vae.yaml",)


def test_a_decoder_that_reads_too_little():
    """The gap is gain * Cov(x, z) = 0.1 * 2 nats per dimension, and the MI is 0.8."""
    found = diagnose(model(GAINS, (0.1,) * 4), data())
    gap = next(row for row in found.evidence if row.key == "shuffle_gap")
    assert gap.low < 4 * 0.1 * 2 < gap.high
    assert found.verdict == "unread" and "less than 50% of what" in found.summary
    assert diagnose(model(GAINS, (0.5,) * 4), data()).verdict == "healthy"


def test_one_dimension_that_is_not_read():
    found = diagnose(model(GAINS, (2.0, 0.0, 2.0, 2.0)), data())
    assert found.verdict == "healthy" and states(found) == ["alive", "unread", "alive", "alive"]
    gaps = [row.shuffle_gap for row in found.dimensions]
    assert gaps[1] == pytest.approx(0, abs=1e-6)
    assert gaps[0] == pytest.approx(4, rel=0.2)  # gain * Cov(x, z) = 2 * 2


def test_an_aggregate_posterior_that_misses_the_prior():
    found = diagnose(model(), data(mean=3.0))
    assert found.verdict == "holes"
    assert all(row.aggregate_kl > 1 for row in found.dimensions)
    assert "sample" not in str(found.remedies[0].command)
    assert any("batch_norm.yaml" in file for remedy in found.remedies for file in remedy.files)


@pytest.mark.parametrize("lr", [0.02, 0.45], ids=["short steps", "long steps"])
def test_refinement_that_goes_too_far(lr):
    steps = Inference("semi_amortized", steps=8, lr=lr, loss_per="example", clip=0.0, momentum=0.0)
    found = diagnose(model(), data(), inference=steps)
    assert (found.verdict == "over-refined") == (lr > 0.4)
    if lr > 0.4:
        assert found.remedies[0].options[0] == "--inference.lr"


def test_information_that_only_comes_from_refinement():
    steps = Inference(
        "semi_amortized", steps=20, lr=0.1, loss_per="example", clip=0.0, momentum=0.0
    )
    found = diagnose(model((0.0,) * 4), data(), inference=steps)
    assert found.verdict == "collapsed" and "comes from the refinement steps" in found.summary
    evidence = {row.key: row.value for row in found.evidence}
    assert evidence["encoder_mi"] < 0.01 and evidence["mi"] > 1


@pytest.mark.parametrize(
    "x",
    [
        data(count=1),
        data(count=MIN_EXAMPLES - 1),
        data(count=1).expand(100, -1),
        data(count=5).repeat(20, 1),
    ],
    ids=["one", "nine", "one repeated", "five repeated"],
)
@pytest.mark.parametrize("gains", [GAINS, (0.0,) * 4], ids=["used", "collapsed"])
def test_too_few_examples(x, gains):
    found = diagnose(model(gains, gains), x)
    assert found.verdict == "too few examples to tell"
    assert found.is_at_least("collapsed") is None
    card = textvae.evaluate(model(gains, gains), x.split(64), samples=2)
    assert "at least 10 different ones are needed to tell whether z is used" in card["collapse"]


def test_an_interval_that_covers_the_threshold_gives_no_verdict():
    weak = (0.3,) * 4  # MI 0.17 nats
    assert diagnose(model(weak, weak), data(weak, 30)).verdict == "too few examples to tell"
    unread = diagnose(model(weak, (0.0,) * 4), data(weak, 30))  # is there anything to read?
    assert unread.verdict == "too few examples to tell" and "ignores z" not in str(unread)
    found = diagnose(model(weak, weak), data(weak, 3000))
    assert found.verdict == "healthy"


def test_padding_does_not_make_two_examples_different():
    tokens = [torch.tensor([[1, 5, 2] + [0] * pad]) for pad in range(20)]
    batches = [Batch(x.float(), index=torch.tensor([i])) for i, x in enumerate(tokens)]

    class Constant(nn.Module):
        def forward(self, batch):
            return DiagGaussian(torch.zeros(1, 2), torch.zeros(1, 2))

    class Ignores(Reads):
        def log_prob(self, batch, z):
            return z.new_zeros(z.shape[:2])

    found = textvae.diagnose(VAE(Constant(), Ignores((1.0,)), 2), batches, samples=1)
    assert "20 examples that are all the same" in found.summary


@pytest.mark.parametrize(
    ("writes", "reads"),
    [(GAINS, GAINS), ((0.0,) * 4, (0.0,) * 4), (GAINS, (0.0,) * 4), (GAINS, (0.1,) * 4)],
    ids=["healthy", "collapsed", "ignored", "half read"],
)
def test_the_metrics_card_judges_alike(writes, reads):
    x = data(writes)
    found = diagnose(model(writes, reads), x)
    card = textvae.evaluate(model(writes, reads), x.split(64), samples=5)
    if found.verdict == "healthy":
        assert card["collapse"] is None
    else:
        assert card["collapse"].startswith(f"{found.summary}; try skip connections from z")


def test_a_model_without_a_latent_variable_is_refused():
    with pytest.raises(textvae.UserError, match="latent_dim 0"):
        diagnose(VAE(None, Reads(()), 0), torch.zeros(20, 0))


def test_the_worst_finding_is_the_verdict_and_the_others_follow():
    gains = (2.0, 2.0, 0.0, 2.0)
    found = diagnose(model(gains, gains), data(gains, mean=3.0))
    assert [finding.verdict for finding in found.findings] == ["partly collapsed", "holes"]
    assert found.is_at_least("partly collapsed") and found.is_at_least("under-trained")
    assert found.is_at_least("unread") is False
    assert "also holes: " in str(found)


def test_the_baseline_is_compared_example_by_example():
    x = data()
    baseline = Normal(0.0, 5.0**0.5).log_prob(x).sum(1)  # the exact marginal
    found = diagnose(model(), x, baseline=baseline)
    gains = {row.key: row for row in found.evidence}
    assert gains["elbo_gain"].low < 0 < gains["elbo_gain"].high  # the posterior is exact
    assert gains["rec_gain"].value == pytest.approx(4 * 0.5 * math.log(5), abs=0.3)
    with pytest.raises(textvae.UserError, match="10 examples"):
        diagnose(model(), x, baseline=baseline[:10])


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == (pytest.approx(b, abs=1e-4) if isinstance(b, float) else b)


def test_neither_batches_nor_their_order_nor_the_random_state_matter():
    x = data(count=60)
    torch.manual_seed(5)
    first = diagnose(model(), x).to_dict()
    rows = torch.randperm(60)
    batches = [Batch(x[some], index=some) for some in rows.split(7)]
    assert same(textvae.diagnose(model(), batches, samples=5).to_dict(), first)
    assert not same(diagnose(model(), x, seed=1).to_dict(), first)


def test_random_state_and_mode_do_not_change():
    vae = model().train()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    diagnose(vae, data(count=20))
    assert torch.rand(1) == expected and vae.training


def test_json_has_everything_and_no_numbers_that_json_lacks():
    found = diagnose(model(), data(count=1))
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["verdict"] == found.verdict
    assert record["evidence"][0].keys() == {"key", "name", "value", "low", "high", "unit"}
    assert record["evidence"][0]["low"] is None
    assert [row["number"] for row in record["dimensions"]] == [0, 1, 2, 3]
    assert record["history"] == {"moments": [], "deaths": []}


# -- the training, which only the run knows


@pytest.fixture(scope="module")
def well():
    return examine(model().eval(), data().split(64), samples=2, shuffle=True).symptoms


DONE = Training(True, epoch=10, beta=1.0, final_beta=1.0, gain=0.01, elbo=-40.0)


def test_a_run_that_is_finished_and_flat_is_healthy(well):
    assert judge(well, DONE)[0].verdict == "healthy"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"gain": 2.0}, "still rising: by 2.00 nats (5.0%)"),
        ({"finished": False}, "training is not finished: the model is from epoch 10"),
        ({"beta": 0.0}, "training ended before the KL counted"),
    ],
)
def test_a_run_that_ended_too_soon_is_under_trained(well, change, text):
    (finding,) = judge(well, DONE._replace(**change))
    assert finding.verdict == "under-trained"
    assert text in finding.summary
    assert finding.summary.startswith("z is used: ") or change == {"beta": 0.0}


def test_it_is_too_early_to_call_a_model_collapsed_while_the_kl_weight_rises():
    nothing = (0.0,) * 4
    dead = examine(model(nothing, nothing).eval(), data(nothing).split(64), samples=2).symptoms
    early = DONE._replace(epoch=0.5, beta=0.1)
    (found,) = judge(dead, early)
    assert (found.verdict, found.about) == ("under-trained", "collapsed")
    assert judge(dead, early._replace(epoch=1.0)) != judge(dead, early._replace(epoch=1.1))
    unsure = Diagnosis("", "", "", "", 0, (found,), (), (), History(), ())
    assert unsure.is_at_least("under-trained") is True
    assert unsure.is_at_least("collapsed") is None
    assert judge(dead, early._replace(beta=1.0))[0].verdict == "collapsed"
    assert judge(dead, early._replace(beta=0.999))[0].verdict == "collapsed"  # warm-up just ended
    assert judge(dead, early._replace(epoch=3))[0].verdict == "collapsed"
    assert "too early" in warning(dead, training=early)
    assert "posterior collapse" in warning(dead, training=early._replace(epoch=3))
    steps = {"overshoot": Interval(-0.4, -0.5, -0.3), "gap": Interval(-0.3, -0.4, -0.2)}
    refined = replace(dead, figures={**dead.figures, **steps})
    verdicts = [finding.verdict for finding in judge(refined, early)]
    assert verdicts == ["over-refined", "under-trained"]
    assert [finding.verdict for finding in judge(refined, DONE)] == ["collapsed"]


def test_a_figure_that_was_not_measured_is_not_judged(well):
    unknown = replace(well, figures={k: v for k, v in well.figures.items() if k != "hole_share"})
    assert judge(unknown, DONE)[0].verdict == "healthy"


@pytest.mark.parametrize(
    ("figure", "good", "bad", "verdict"),
    [
        ("kl", 0.11, 0.09, "collapsed"),
        ("mi", 0.11, 0.09, "collapsed"),
        ("overshoot", -0.49, -0.51, "over-refined"),
        ("gap", -0.09, -0.11, "over-refined"),
        ("shuffle_gap", 0.11, 0.09, "unread"),
        ("read", 0.01, -1.0, "unread"),
        ("hole_share", 0.09, 0.11, "holes"),
    ],
)
def test_where_an_illness_begins(well, figure, good, bad, verdict):
    still = {"overshoot": Interval(0.0, 0.0, 0.0)}
    for value, expected in ((good, "healthy"), (bad, verdict)):
        figures = well.figures | still | {figure: Interval(value, value, value)}
        assert judge(replace(well, figures=figures), DONE)[0].verdict == expected


@pytest.mark.parametrize(
    ("figure", "interval", "about"),
    [
        ("mi", Interval(0.2, 0.0, 1.0), "collapsed"),
        ("overshoot", Interval(-0.5, -2.0, 0.5), "over-refined"),
        ("shuffle_gap", Interval(0.2, 0.0, 1.0), "unread"),
        ("hole_share", Interval(0.1, 0.02, 0.3), "holes"),
    ],
)
def test_what_may_be_on_either_side_of_a_threshold_is_unclear(well, figure, interval, about):
    (found,) = judge(replace(well, figures=well.figures | {figure: interval}), DONE)
    assert (found.verdict, found.about) == ("too few examples to tell", about)


@pytest.mark.parametrize(("value", "verdict"), [(0.1, "healthy"), (-0.1, "unread")])
def test_a_narrow_interval_around_half_of_the_information_decides(well, value, verdict):
    figures = well.figures | {"read": Interval(value, value - 0.2, value + 0.2)}
    assert judge(replace(well, figures=figures), DONE)[0].verdict == verdict


def test_one_dead_dimension_in_ten_is_no_illness(well):
    alive, dead, unclear = (Interval(*ends) for ends in ((1, 1, 1), (0, 0, 0), (0.01, 0, 1)))
    for some, verdict in (
        ([dead], "healthy"),
        ([dead] * 2, "partly collapsed"),
        ([unclear] * 2, "too few examples to tell"),
    ):
        variances = some + [alive] * (10 - len(some))
        symptoms = replace(well, latent_dim=10, variances=variances, dimension_gaps=None)
        assert judge(symptoms, DONE)[0].verdict == verdict


def test_a_dimension_is_read_if_it_is_worth_a_hundredth_of_a_nat(well):
    alive = [Interval(1.0, 1.0, 1.0)] * 4
    for gap, state in ((0.011, "alive"), (0.009, "unread")):
        gaps = [Interval(gap, gap, gap)] * 4
        symptoms = replace(well, variances=alive, dimension_gaps=gaps)
        assert dimension_states(symptoms) == [state] * 4


def test_what_is_certain_decides_and_what_is_unclear_follows(well):
    unclear = {"shuffle_gap": Interval(0.2, 0.0, 1.0)}  # worse than holes, if it is so
    holes = {"hole_share": Interval(0.5, 0.4, 0.6)}
    found = judge(replace(well, figures=well.figures | unclear | holes), DONE)
    assert [each.about for each in found] == ["holes", "unread"]
    assert found[1].summary.startswith("it is unclear whether the decoder reads z")
    maybe = {"hole_share": Interval(0.1, 0.02, 0.3)}
    (only,) = judge(replace(well, figures=well.figures | maybe), DONE)
    assert only.verdict == "too few examples to tell"
    assert only.summary.startswith("z is used: MI ")
    assert "; but it is unclear whether the prior has holes: 2% to 30%" in only.summary
    found = judge(replace(well, figures=well.figures | maybe), DONE._replace(gain=2.0))
    assert [each.about for each in found] == ["under-trained", "holes"]


def test_a_collapsed_model_that_still_improves_is_also_under_trained(well):
    none = {key: Interval(0.0, 0.0, 0.0) for key in ("kl", "mi")}
    collapsed = replace(well, figures=well.figures | none)
    assert [f.verdict for f in judge(collapsed, DONE)] == ["collapsed"]
    found = judge(collapsed, DONE._replace(gain=2.0))
    assert [f.verdict for f in found] == ["collapsed", "under-trained"]
    assert found[1].summary.startswith("training ended while the ELBO was still rising")


def test_a_percent_in_the_last_epoch_is_no_rise(well):
    assert judge(well, DONE._replace(gain=0.39))[0].verdict == "healthy"
    assert judge(well, DONE._replace(gain=0.41))[0].verdict == "under-trained"
    autoencoder = DONE._replace(beta=0.0, final_beta=0.0)  # nothing but, and on purpose
    assert judge(well, autoencoder)[0].verdict == "healthy"


def test_refinement_is_compared_with_its_start_and_its_best_step():
    column = torch.tensor([[1.0], [3.0]])  # KL of two examples
    known = {
        "rec": torch.tensor([-4.0, -6.0]),  # ELBO -5 and -9: a mean of -7
        "kl": column,
        "path": torch.tensor([[-8.0, -6.0, -7.0], [-10.0, -4.0, -5.0]]),  # means -9, -5, -6
        "own_rec": torch.tensor([-7.0, -8.0]),
        "own_kl": column,  # ELBO -8 and -11: a mean of -9.5
    }
    stats = ExampleStats(**(dict.fromkeys(ExampleStats.__annotations__) | known))
    found = _columns(stats, torch.zeros(2), torch.zeros(2), None)
    assert (float(found["overshoot"].mean()), float(found["gap"].mean())) == (-2.0, 2.5)


def test_holes_are_as_certain_as_the_number_of_examples(well):
    share = well.figures["hole_share"]  # of 1000 draws, with an edge from 300 examples
    assert share == of_share(share.value, COUNT)


# -- runs and the command


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run whose z is not used after its 12 updates; the KL always counts."""
    folder = tmp_path_factory.mktemp("diagnosed") / "my run"
    constant = ["--objective.kl_schedule", "constant"]
    assert in_child(["train", "--out", str(folder), *tiny, *constant]) == 0
    return folder


def test_a_run_is_diagnosed_and_the_result_is_saved(run):
    found = textvae.diagnose_run(run, split="train")
    assert (found.model, found.split, found.count) == ("my run", "train", 96)
    assert found.verdict == "collapsed"
    assert [row.epoch for row in found.history.moments] == [1.0, 2.0]
    saved = json.loads((run / "metrics" / "train-diagnosis.json").read_text())
    assert saved["verdict"] == "collapsed" and saved["seed"] == 0 and saved["corpus_hash"]
    assert "textvae train --config" in found.remedies[0].command
    assert "my run, train split: collapsed" in str(found)


def test_a_run_that_never_left_autoencoding_is_to_train_on(tiny, tmp_path):
    folder, again = tmp_path / "run", tmp_path / "again"
    phases = ["--train.autoencode_epochs", "2", "--train.max_steps", "4"]
    assert in_child(["train", "--out", str(folder), *tiny, *phases]) == 0
    found = textvae.diagnose_run(folder, split="train", samples=2)
    assert found.verdict == "under-trained" and len(found.findings) == 1
    (remedy,) = found.remedies
    words = shlex.split(remedy.command)[1:]
    words[words.index("--out") + 1] = str(again)
    assert in_child(words) == 0
    assert json.loads((again / "training.json").read_text())["steps"] > 12


def test_the_batch_size_of_a_run_does_not_matter(run):
    a, b = (textvae.diagnose_run(run, split="train", batch_size=size) for size in (3, 64))
    assert same(a.to_dict(), b.to_dict())


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 0),
        (["--fail-on", "collapsed"], 1),
        (["--fail-on", "under-trained"], 1),
        (["--fail-on", "holes", "--limit", "5"], 2),
        (["--fail-on", "healthy"], 2),
    ],
)
def test_exit_codes(run, options, status, capfd):
    assert (
        in_child(["diagnose", str(run), "--split", "train", "--samples", "2", *options]) == status
    )
    if status == 2:
        (line,) = capfd.readouterr().err.splitlines()[-1:]
        assert line.startswith("textvae: ")
    if "--limit" in options:  # not that training ended early, which is another finding
        assert line.endswith("5 examples: at least 10 different ones are needed to tell whether "
                             "z is used")  # fmt: skip


def test_the_command_prints_json(run, capfd):
    assert in_child(["diagnose", str(run), "--json", "--limit", "12", "--samples", "1"]) == 0
    assert json.loads(capfd.readouterr().out)["count"] == 12
    assert (run / "metrics" / "test-diagnosis-limit12.json").exists()


def test_a_language_model_is_a_baseline_and_has_nothing_to_diagnose(run, language_model, capfd):
    found = textvae.diagnose_run(run, split="train", samples=2, baseline=language_model)
    assert {"rec_gain", "elbo_gain"} <= {row.key for row in found.evidence}
    assert in_child(["diagnose", str(language_model)]) == 2
    assert "has no latent variable (latent_dim 0)" in capfd.readouterr().err
    with pytest.raises(textvae.UserError, match="a baseline is a language model"):
        textvae.diagnose_run(run, baseline=run)


def test_a_file_of_new_examples_has_a_diagnosis_of_its_own(
    run, corpus, language_model, tmp_path, capfd
):
    texts = (corpus / "test.txt").read_text(encoding="utf-8").splitlines()
    with (tmp_path / "new.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["number", "said"])
        table.writerows(enumerate(texts[:15]))
    textvae.diagnose_run(run, samples=1)
    saved = run / "metrics" / "test-diagnosis.json"
    before = saved.read_bytes()
    argv = ["diagnose", str(run), "--data", str(tmp_path / "new.csv"), "--samples", "2"]
    assert in_child([*argv, "--data.text_column", "nothing"]) == 2
    assert "nothing" in capfd.readouterr().err
    argv += ["--data.text_column", "said", "--baseline", str(language_model)]
    assert in_child(argv) == 0
    shown = capfd.readouterr().out
    assert shown.startswith("my run, new.csv: ") and "rec - baseline" in shown
    assert "--data.dir" not in shown  # it is not what to train on
    assert (run / "metrics" / "new.csv-diagnosis.json").exists()
    assert saved.read_bytes() == before
    (tmp_path / "train.txt").write_text("a b c\n" * 60, encoding="utf-8")
    other = str(tmp_path / "other")
    train = ["train", *TINY, "--model.latent_dim", "0", "--train.epochs", "1", "--out", other]
    assert in_child([*train, "--data.dir", str(tmp_path / "train.txt")]) == 0
    assert in_child([*argv[:-1], other]) == 2
    assert "choose another baseline" in capfd.readouterr().err


def test_a_larger_part_of_a_new_file_is_suggested_for_that_file(run, corpus, tmp_path):
    place = tmp_path / "new.txt"
    shutil.copy(corpus / "test.txt", place)
    found = textvae.diagnose_run(run, data=place, limit=3, samples=1)
    assert found.verdict == "too few examples to tell"
    assert found.remedies[0].command.endswith(f"--split test --data {place}")


def test_a_pipe_cannot_be_compared_with_a_baseline(run, language_model):
    with pytest.raises(textvae.UserError, match="both models read the examples"):
        textvae.diagnose_run(run, data="-", baseline=language_model)


class Mine(textvae.TextVAE):
    """A class of the user's own."""


def test_no_command_would_train_a_class_of_the_users_own(run):
    model = textvae.load(run)
    model.__class__ = Mine
    found = textvae.diagnose_run(run, model=model, split="train")
    assert found.remedies and all(remedy.command is None for remedy in found.remedies)
    assert all(remedy.in_words for remedy in found.remedies if remedy.files)


def test_a_diagnosis_of_other_texts_is_not_that_of_the_card(run):
    textvae.diagnose_run(run, split="train", samples=1)
    card = {"count": 96, "corpus_hash": textvae.evaluate_run(run, split="train")["corpus_hash"]}
    assert load_diagnosis(run, "train", card) is not None
    assert load_diagnosis(run, "train", card | {"corpus_hash": "another"}) is None


def test_the_command_knows_every_verdict_from_bad_to_worse():
    assert ("healthy", *FAIL_ON.values()) == SEVERITY


@pytest.mark.parametrize("prefix", ["", "encoder_"])
def test_the_interval_of_mi_ends_with_its_upper_bound_or_the_kl(prefix):
    def widened(mi, kl, rest, upper):
        keys = (f"{prefix}mi", f"{prefix}kl", "marginal_kl")
        figures = dict(zip(keys, (Interval(*each) for each in (mi, kl, rest)), strict=True))
        _widen(figures, prefix, Interval(*upper))
        return [figures[key] for key in (keys[0], keys[2])]

    mi, kl, rest = (5.0, 4.9, 5.1), (8.0, 7.5, 8.5), (3.0, 2.8, 3.2)
    found = widened(mi, kl, rest, (6.0, 5.9, 6.1))
    assert found[0] == (5.0, 4.9, 6.1)
    assert found[1].low == (rest[1] if prefix else pytest.approx(1.4)) and found[1].high == 3.2
    assert widened(mi, kl, rest, (30.0, 20.0, 40.0))[0].high == 8.5  # MI <= KL
    assert widened(mi, kl, rest, (30.0, 20.0, 40.0))[1].low == (rest[1] if prefix else 0.0)
    assert widened(mi, kl, rest, (5.0, 4.9, 5.0)) == [mi, (3.0, rest[1] if prefix else 2.5, 3.2)]
    kept = widened(mi, (8.0, 8.0, 8.0), rest, (5.0, 4.9, 5.0))[1]
    assert kept.low == 2.8  # and not 3.0: the interval only becomes wider


def test_the_interval_of_a_refined_model_has_the_upper_bound_of_its_encoder():
    narrow = (30.0,) * 4
    steps = Inference("semi_amortized", steps=2, lr=0.01, loss_per="example", clip=0.0)
    found = diagnose(model(narrow, narrow), data(narrow), inference=steps)
    rows = {row.key: row for row in found.evidence}
    for key in ("mi", "encoder_mi"):
        assert rows[key].value < 5.71 and rows[key].high > 10


def test_intervals_hold_what_few_examples_cannot_measure():
    """The aggregate of these posteriors is the prior, and KL - MI is 8 nats even so."""
    narrow = (30.0,) * 4  # an MI of 13.6 nats, of which 300 examples show ln 300 = 5.7
    found = diagnose(model(narrow, narrow), data(narrow))
    rows = {row.key: row for row in found.evidence}
    assert rows["mi"].value < 5.71 and rows["mi"].high > 13
    assert rows["marginal_kl"].value > 7 and rows["marginal_kl"].low == 0
    assert "MI at least 5.7" in found.summary
    many = diagnose(model(), data(count=3000))
    rows = {row.key: row for row in many.evidence}
    assert rows["mi"].high - rows["mi"].value < 0.5 and "at least" not in many.summary


def test_the_gap_and_the_dimensions_of_a_refined_model_are_those_of_its_encoder():
    steps = Inference("semi_amortized", steps=6, lr=0.1, loss_per="example", clip=0.0, momentum=0.0)
    vae = model((0.5, 0.5, 2.0, 2.0))  # an encoder that knows less than the exact posterior
    found = diagnose(vae, data(), inference=steps)
    evidence = {row.key: row.value for row in found.evidence}
    card = textvae.evaluate(vae, data().split(64), samples=5, inference=steps)
    assert evidence["gap"] == pytest.approx(card["gap"], abs=1e-3) and card["gap"] > 0.1
    kl = sum(row.kl for row in found.dimensions)
    assert kl == pytest.approx(evidence["encoder_kl"], rel=1e-4)
    assert kl != pytest.approx(evidence["kl"], rel=0.05)
