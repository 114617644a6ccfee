"""Heads: what they promise of means and variances, in training and in evaluation."""

import math

import pytest
import torch

from textvae.builders.model import check_model
from textvae.config.experiment import Config, DataConfig, ModelConfig, ObjectiveConfig
from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.images.datasets import as_batch
from textvae.images.model import ImageVAE
from textvae.text.model import TextVAE
from textvae.vae.batch import Batch
from textvae.vae.heads import BatchNormHead, DUHead, GaussianHead, ScaleHead, make_head
from textvae.vae.inference import infer
from textvae.vae.objectives import elbo
from textvae.vae.posteriors import kl
from textvae.vae.priors import StandardNormal

SIZE, H, Z = 24, 7, 5
NORMALIZED = {"batch_norm": BatchNormHead, "du": DUHead, "scale": ScaleHead}


def features(count=SIZE, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(count, H, generator=generator, dtype=dtype) + 0.2


def head(kind, seed=0, **options):
    torch.manual_seed(seed)
    made = make_head(H, Z, kind=kind, **options)
    if kind in ("batch_norm", "du"):
        torch.nn.init.normal_(made.mean_bias)
    return made


def plain_head(made):
    """The same linear map and nothing else."""
    plain = GaussianHead(H, Z)
    plain.load_state_dict({name: made.state_dict()[name] for name in ("weight", "bias")})
    return plain


def test_make_head_makes_each_kind_with_the_published_scale():
    assert type(make_head(H, Z)) is GaussianHead
    assert all(type(make_head(H, Z, kind=kind)) is NORMALIZED[kind] for kind in NORMALIZED)
    assert (head("batch_norm").gamma, head("du").gamma, head("scale").deviation) == (0.6, 0.5, 1.1)
    assert head("batch_norm", scale=0.7).gamma == 0.7


@pytest.mark.parametrize("scale", [0.3, 0.6])
def test_the_kl_of_batch_normalized_means_has_a_bound(scale):
    made, prior = head("batch_norm", scale=scale), StandardNormal(Z)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.3)
    for _ in range(60):  # nothing but the KL: the encoder does all it can to lower it
        q = made(features())
        total = kl(q, prior).sum(-1).mean()
        bound = 0.5 * (Z * scale**2 + made.mean_bias.detach().square().sum())
        assert float(total.detach()) >= float(bound) * (1 - 1e-5)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert float(total.detach()) == pytest.approx(Z * scale**2 / 2, rel=0.05)  # it gets close


def test_a_linear_head_has_no_such_bound():
    made, prior = head("linear"), StandardNormal(Z)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.3)
    for _ in range(100):
        total = kl(made(features()), prior).sum(-1).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert float(total.detach()) < 0.05


def test_batch_normalized_means_have_the_statistics_of_gamma_and_bias():
    made = head("batch_norm")
    mean, logvar = made(features())
    torch.testing.assert_close(mean.mean(0), made.mean_bias)
    torch.testing.assert_close(mean.std(0, correction=0), torch.full((Z,), 0.6), rtol=1e-3, atol=0)
    plain = plain_head(made)(features())
    torch.testing.assert_close(logvar, plain.logvar)


def test_du_holds_the_root_mean_square_of_its_scale():
    made = head("du")
    torch.nn.init.normal_(made.log_scale)
    mean, _ = made(features())
    deviation = mean.detach().std(0, correction=0)
    assert float(deviation.square().mean().sqrt()) == pytest.approx(0.5, rel=1e-3)
    assert float(deviation.max() / deviation.min()) > 1.5  # the dimensions differ
    mean.square().mul(torch.arange(Z)).sum().backward()
    assert float(made.log_scale.grad.abs().max()) > 0


def test_du_raises_variances_and_drops_some_in_training():
    made, floor = head("du"), 1 / (2 * math.pi * math.e)
    made.eval()
    variance = plain_head(made)(features()).logvar.exp()
    torch.testing.assert_close(made(features()).logvar.exp(), variance + floor)
    made.train()
    torch.manual_seed(1)
    drawn = torch.stack([made(features()).logvar.exp() for _ in range(2000)])
    dropped = (drawn - floor).abs() < 1e-6
    assert float(dropped.float().mean()) == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(drawn.mean(0), variance + floor, rtol=0.07, atol=0)
    kept = drawn[~dropped]
    torch.testing.assert_close(kept, (variance / 0.8 + floor).expand_as(drawn)[~dropped])


def test_scaled_means_have_the_deviation_and_stay_where_they_are():
    made = head("scale")
    mean, logvar = made(features())
    raw = plain_head(made)(features())
    torch.testing.assert_close(mean.std(0, correction=0), torch.full((Z,), 1.1), rtol=1e-3, atol=0)
    torch.testing.assert_close(mean.mean(0), raw.mean.mean(0))
    ratio = (mean - mean.mean(0)) / (raw.mean - raw.mean.mean(0))
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=0)
    assert bool((ratio > 0).all())
    torch.testing.assert_close(logvar, raw.logvar)


@pytest.mark.parametrize("kind", NORMALIZED)
def test_normalized_means_start_with_a_moderate_kl(kind):
    """Before training, the means of a head hardly differ: their offset must not be scaled up."""
    made = head(kind)
    with torch.no_grad():
        made.weight.mul_(0.01)
        made.bias.fill_(0.5)
    kl = made(features()).kl_to(StandardNormal(Z))
    assert float(kl.detach().sum(-1).mean()) < 3 * Z


@pytest.mark.parametrize("kind", NORMALIZED)
def test_evaluation_uses_running_statistics_and_no_batch(kind):
    made = head(kind)
    for seed in range(200):
        made(features(64, seed))
    made.eval()
    together = made(features()).mean
    apart = torch.cat([made(part).mean for part in features().split(5)])
    torch.testing.assert_close(together, apart)
    made.train()
    batch = made(features(4000, seed=999)).mean
    made.eval()
    torch.testing.assert_close(made(features(4000, seed=999)).mean, batch, atol=0.2, rtol=0.1)


@pytest.mark.parametrize("kind", NORMALIZED)
def test_a_batch_of_one_uses_the_running_statistics(kind):
    made = head(kind)
    for seed in range(50):
        made(features(64, seed))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    one = made(features(1)).mean
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    torch.testing.assert_close(one, made.eval()(features(1)).mean)


@pytest.mark.parametrize("kind", NORMALIZED)
def test_equal_examples_do_not_explode(kind):
    made = head(kind)
    same = features(1).expand(3, -1).clone().requires_grad_()
    q = made(same)
    (q.mean.sum() + q.logvar.sum()).backward()
    assert bool(q.mean.isfinite().all()) and bool(same.grad.isfinite().all())


@pytest.mark.parametrize("kind", NORMALIZED)
def test_a_head_is_in_full_precision_whatever_its_input(kind):
    with torch.autocast("cpu", torch.bfloat16):
        q = head(kind)(features().bfloat16())
    assert q.mean.dtype == q.logvar.dtype == torch.float32


@pytest.mark.parametrize("kind", NORMALIZED)
def test_gradients_are_those_of_differences(kind):
    made = head(kind).double()
    x = features(6, dtype=torch.float64).requires_grad_()

    def loss(x):
        torch.manual_seed(2)  # the same dropout
        mean, logvar = made(x)
        return (mean.pow(3) + mean * torch.arange(Z)).sum() + logvar.square().sum()

    assert torch.autograd.gradcheck(loss, (x,))


def text_model(**options):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 6, "encoder_hidden": 8, "decoder_hidden": 8, "latent_dim": 3}
    return TextVAE(11, **{**sizes, **options})


def sentences(count=6):
    x = torch.randint(4, 11, (count, 6), generator=torch.Generator().manual_seed(0))
    x[:, 0], x[:, 5] = 2, 3
    ones = torch.full((count,), 5)
    return Batch(x, ones, ones, ones, torch.arange(count))


OPTIONS = [*({"head": kind} for kind in NORMALIZED), {"posterior": "vmf"}]
STEPS = Inference("semi_amortized", steps=2, lr=0.5, hvp="exact")


@pytest.mark.parametrize("inference", [Inference(), STEPS], ids=["amortized", "refined"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_models_of_text_and_images_train_and_are_saved(options, inference, tmp_path):
    pixels = (torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    image = ImageVAE(
        8,
        8,
        3,
        encoder="mlp",
        encoder_hidden=8,
        encoder_layers=1,
        decoder="mlp",
        decoder_hidden=8,
        decoder_layers=1,
        **options,
    )
    for made, batch in (
        (text_model(**options), sentences()),
        (image, as_batch(pixels, torch.arange(6))),
    ):
        elbo(made.train()(batch, 1, 1.0, inference)).backward()
        grads = [p.grad for p in made.encoder.parameters()]
        assert all(g is not None and bool(g.isfinite().all()) for g in grads)
        assert any(float(g.abs().max()) > 0 for g in grads)
        made.eval()
        q = made.posterior(batch)
        refined = infer(made, batch, STEPS).posterior
        assert not torch.allclose(refined.center(), q.center())
        folder = tmp_path / type(made).__name__
        made.save_pretrained(folder)
        loaded = type(made)(**made.config)
        if isinstance(made, ImageVAE):
            loaded = ImageVAE.from_pretrained(folder)
        else:
            loaded.load_state_dict(made.state_dict())
        torch.testing.assert_close(loaded.eval().posterior(batch).center(), q.center())


def test_initial_weights_are_harmless_to_a_fixed_scale():
    """A large init_scale reaches every parameter: gamma is none."""
    made = text_model(head="du", init_scale=0.5).train()
    deviation = made.posterior(sentences()).mean.detach().std(0, correction=0)
    assert float(deviation.square().mean().sqrt()) == pytest.approx(0.5, rel=1e-3)


def test_the_default_head_leaves_every_weight_as_it_was():
    names = set(text_model().state_dict())
    assert {n for n in names if "head" in n} == {"encoder.head.weight", "encoder.head.bias"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_scale": 0.5}, "head_scale has no effect with head linear"),
        ({"head": "du", "encoder_layers": 0}, "head du needs an encoder"),
        ({"head": "du", "latent_dim": 0, "injection": "none"}, "head du needs a latent variable"),
        ({"posterior": "vmf", "latent_dim": 0, "injection": "none"}, "vmf needs a latent variable"),
        ({"head": "odd"}, "head"),
        ({"pooling": "sum"}, "pooling"),
        ({"posterior": "vmf", "kappa": 0.0}, "kappa"),
    ],
)
def test_what_has_no_meaning_is_one_line(options, message):
    with pytest.raises(UserError, match=message):
        text_model(**options)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"model": ModelConfig(head="scale"), "data": DataConfig(batch_size=1)},
            "normalizes over the batch",
        ),
        ({"model": ModelConfig(injection="none")}, "z would never reach the decoder"),
        (
            {"model": ModelConfig(posterior="vmf"), "objective": ObjectiveConfig(free_bits=4.0)},
            "free_bits has no effect with --model.posterior vmf",
        ),
        (
            {"model": ModelConfig(posterior="vmf"), "objective": ObjectiveConfig(min_kl=4.0)},
            "min_kl has no effect with --model.posterior vmf",
        ),
    ],
)
def test_what_has_no_meaning_in_training_is_one_line(sections, message):
    with pytest.raises(UserError, match=message):
        check_model(Config(**sections))


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"head": "batch_norm", "head_scale": 0.3}, "gamma", 0.3),
        ({"head": "scale", "head_scale": 2.0}, "deviation", 2.0),
        ({"posterior": "vmf", "kappa": 50.0}, "kappa", 50.0),
    ],
)
def test_options_of_a_model_reach_its_head(options, name, value):
    model = TextVAE(20, latent_dim=3, embedding_dim=4, encoder_hidden=4, **options)
    assert getattr(model.encoder.head, name) == value
