"""Learning rates for hand-made sequences of ELBOs; every parameter is in the optimizer."""

import math
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from textvae.config.experiment import OptimConfig
from textvae.errors import UserError
from textvae.text.model import TextVAE
from textvae.training.optim import LearningRate, build_optimizer, check_moments

SA_VAE = OptimConfig(lr=1.0, patience=1, decay_from=15, decay_every=True, min_lr_share=0.03)
LAGGING = OptimConfig(
    lr=1.0,
    patience=2,
    decay_from=15,
    decay_every=False,
    reload_best=True,
    min_lr_share=0.0,
    max_decays=5,
)


def rates(config: OptimConfig, elbos: list[float]) -> tuple[list[float], LearningRate]:
    """The learning rate after each epoch, until the rule stops the training."""
    rate, seen = LearningRate(config, 1000), []
    for epoch, elbo in enumerate(elbos, start=1):
        rate.observe(elbo, epoch)
        seen.append(rate.at(epoch))
        if rate.exhausted():
            break
    return seen, rate


def test_sa_vae_waits_for_epoch_15_then_halves_at_every_epoch():
    elbos = [-100 - (e % 2) for e in range(14)]  # no improvement from the third on: too early
    elbos += [-99.0, -98.0, -98.5, -90.0, -89.0, -88.0, -87.0]
    seen, rate = rates(SA_VAE, elbos)
    # epochs 15 and 16 improve, 17 does not, and later improvements change nothing
    assert seen == [1.0] * 16 + [0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert rate.exhausted() is None
    rate.observe(-86.0, 22)
    assert "fell below 0.03" in rate.exhausted()


def test_the_rule_is_the_same_at_the_learning_rates_of_adam():
    elbos = [*range(-100, -86), *[-200.0] * 6]
    seen, rate = rates(replace(SA_VAE, lr=0.001), elbos)
    assert seen == pytest.approx([0.001] * 14 + [0.001 / 2**cut for cut in range(1, 7)])
    assert rate.exhausted() == "the learning rate fell below 0.03 of 0.001"


def test_sa_vae_counts_epoch_15_itself():
    seen, _ = rates(SA_VAE, [*range(-100, -86), -200.0])
    assert seen == [1.0] * 14 + [0.5]


def test_an_equal_elbo_is_not_an_improvement():
    seen, rate = rates(SA_VAE, [*range(-100, -86), -87.0])
    assert seen[-1] == 0.5 and rate.stale == 1


def test_a_rate_at_its_lowest_share_is_not_below_it():
    _, rate = rates(replace(SA_VAE, min_lr_share=0.5), [*range(-100, -86), -200.0])
    assert rate.scale == 0.5 and rate.exhausted() is None


def test_lagging_encoder_decays_after_two_epochs_without_improvement_and_stops_at_the_fifth():
    elbos = [float(e) for e in range(-100, -85)]  # 15 gains
    elbos += [-87.0, -88.0]  # two without: the first cut
    elbos += [-87.5, -87.6, -87.7]  # better than at the cut: a gain; then two without
    elbos += [-90.0, -91.0] * 9
    seen, rate = rates(LAGGING, elbos)
    assert seen[:22] == [1.0] * 16 + [0.5] * 3 + [0.25] * 2 + [0.125]
    assert seen[-1] == 1 / 32
    assert rate.decays == 5
    assert "reduced 5 times" in rate.exhausted()
    assert rate.best == -86.0


def test_gains_between_cuts_start_the_patience_again():
    seen, _ = rates(LAGGING, [*range(-100, -85), -90.0, -80.0, -90.0, -80.5, -79.0])
    assert seen == [1.0] * 18 + [0.5, 0.5]


def test_warmup_then_cosine_to_0():
    rate = LearningRate(OptimConfig(lr=2.0, schedule="cosine", warmup_steps=4), 14)
    assert [rate.at(s) for s in range(4)] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rate.at(4) == pytest.approx(2.0)
    assert rate.at(9) == pytest.approx(1.0)
    assert rate.at(6) == pytest.approx(1 + math.cos(0.2 * math.pi))
    assert rate.at(14) == pytest.approx(0.0)
    assert rate.at(99) == pytest.approx(0.0)


def test_warmup_longer_than_the_training_never_divides_by_0():
    rate = LearningRate(OptimConfig(lr=1.0, schedule="cosine", warmup_steps=10), 5)
    assert [rate.at(s) for s in (0, 4, 10)] == pytest.approx([0.1, 0.5, 1.0])


def test_a_constant_rate_is_never_cut_and_never_exhausted():
    rate = LearningRate(OptimConfig(lr=0.01, schedule="constant"), 10)
    assert not any(rate.observe(-100.0 - e, e) for e in range(30))
    assert rate.at(9) == 0.01
    assert rate.exhausted() is None
    assert rate.stale == 29  # what early stopping looks at


def test_a_restored_rate_continues_like_the_old_one():
    elbos = [*range(-100, -85), -90.0, -91.0, -90.5, -92.0, -93.0, -94.0, -95.0]
    for cut in range(len(elbos)):
        _, old = rates(LAGGING, elbos[:cut])
        new = LearningRate(LAGGING, 1000)
        new.load_state_dict(old.state_dict())
        for epoch, elbo in enumerate(elbos[cut:], start=cut + 1):
            assert old.observe(elbo, epoch) == new.observe(elbo, epoch)
        assert old.state_dict() == new.state_dict()


def test_what_was_cut_stays_cut_when_validations_are_forgotten():
    _, rate = rates(LAGGING, [*range(-100, -85), -90.0, -91.0, -95.0])
    assert (rate.stale, rate.since_decay) == (3, 1)
    rate.forget()
    none = {"best": -math.inf, "bar": -math.inf, "stale": 0, "since_decay": 0}
    assert rate.state_dict() == {"scale": 0.5, "decays": 1} | none


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_fused_step_equals_the_plain_one_and_continues_from_its_state(name):
    torch.manual_seed(0)
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.1)
    plain, fused = torch.nn.Linear(30, 20), torch.nn.Linear(30, 20)
    fused.load_state_dict(plain.state_dict())
    steps = build_optimizer(config, plain), build_optimizer(config, fused, fused=True)
    assert steps[1].defaults["fused"] is True
    for step in range(6):
        for module, optimizer in zip((plain, fused), steps, strict=True):
            optimizer.zero_grad()
            module(torch.full((4, 30), float(step))).square().sum().backward()
            optimizer.step()
        if step == 2:
            steps[1].load_state_dict(deepcopy(steps[0].state_dict()))
            steps[1].param_groups[0]["fused"] = True
        for a, b in zip(fused.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("latent_dim", [0, 3])
def test_every_parameter_is_in_the_optimizer_and_moves(name, latent_dim):
    model = TextVAE(
        20, latent_dim, embedding_dim=4, encoder_hidden=5, decoder_hidden=5, bidirectional=True
    )
    config = OptimConfig(name=name, lr=0.1, weight_decay=0.1, momentum=0.0)
    optimizer = build_optimizer(config, model)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert len(held) == len(list(model.parameters()))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert not still


def test_options_reach_the_optimizer():
    model = torch.nn.Linear(2, 2)
    group = build_optimizer(
        OptimConfig(name="sgd", lr=0.3, momentum=0.9, weight_decay=0.01), model
    ).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.9, 0.01)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="lion"):
        build_optimizer(OptimConfig(name="lion"), torch.nn.Linear(2, 2))


def _pair(seed=0):
    torch.manual_seed(seed)
    model = TextVAE(20, 3, embedding_dim=4, encoder_hidden=5, decoder_hidden=5)
    config = OptimConfig(name="sgd", lr=0.5, encoder_name="adam", encoder_lr=0.01)
    return model, build_optimizer(config, model)


def _step(model, optimizer, size):
    for p in model.parameters():
        p.grad = torch.full_like(p, size)
    optimizer.step()


def test_the_encoder_can_have_an_optimizer_of_its_own():
    model, optimizer = _pair()
    assert [group.get("lr_ratio", 1.0) for group in optimizer.param_groups] == [1.0, 0.02]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    _step(model, optimizer, 0.3)
    for name, p in model.named_parameters():
        # The first step of Adam has the size of its learning rate, whatever the gradient.
        step = 0.01 if name.startswith("encoder.") else 0.5 * 0.3
        torch.testing.assert_close(before[name] - p, torch.full_like(p, step))


def test_a_pair_of_optimizers_continues_from_its_state():
    (model, optimizer), (other, resumed) = _pair(), _pair(1)
    for size in (0.3, -0.2):
        _step(model, optimizer, size)
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for group in [*optimizer.param_groups, *resumed.param_groups]:
        group["lr"] *= 0.5  # the schedule reaches both
    for size in (0.1, 0.4):
        _step(model, optimizer, size)
        _step(other, resumed, size)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_clearing_the_state_clears_that_of_both():
    (model, optimizer), (fresh, _) = _pair(), _pair()
    _step(model, optimizer, 0.3)
    assert optimizer.state
    optimizer.state.clear()
    model.load_state_dict(fresh.state_dict())
    _step(model, optimizer, 0.3)
    moved = fresh.encoder.state_dict()
    for name, p in model.encoder.state_dict().items():
        torch.testing.assert_close(moved[name] - p, torch.full_like(p, 0.01))


def _set(**values):
    return lambda moments: moments.update(values)


@pytest.mark.parametrize(
    "damage",
    [
        *(_set(exp_avg=value) for value in (None, "x", 3, torch.tensor(math.nan))),
        *(_set(exp_avg=value) for value in (torch.ones(2, 3).t(), torch.ones(3, 2).to_sparse())),
        *(_set(step=value) for value in (torch.ones(2), torch.tensor(-1.0))),
        lambda moments: moments["exp_avg"].view(-1)[0].fill_(math.nan),
        lambda moments: moments["exp_avg_sq"].view(-1)[0].fill_(-1.0),
        lambda moments: moments.pop("exp_avg_sq"),
    ],
)
def test_damaged_moments_are_refused(damage):
    layer = nn.Linear(2, 3)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    again = torch.optim.Adam(layer.parameters())
    again.load_state_dict(state)
    check_moments(again)
    damage(state["state"][0])
    again.load_state_dict(state)
    with pytest.raises(UserError, match=r"the checkpoint's optimizer state \(.*\) does not fit"):
        check_moments(again)


@pytest.mark.parametrize("kind", [torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9)])
def test_moments_are_laid_out_like_their_weights(kind):
    weight = nn.Parameter(torch.randn(3, 4).t())  # as a model of one's own may have it
    optimizer = kind([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    check_moments(optimizer)


def test_adamw_decays_the_weights_apart_from_the_gradient():
    model = torch.nn.Linear(1, 1, bias=False)
    before = float(model.weight.detach())
    optimizer = build_optimizer(OptimConfig(name="adamw", lr=0.1, weight_decay=0.5), model)
    model.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert float(model.weight.detach()) == pytest.approx(before * (1 - 0.1 * 0.5))
