"""Refinement: its gradients against full unrolling by autograd, its steps against exact answers."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import step_noise
from torch import nn
from torch.nn import functional as F

from textvae.config.inference import Inference, for_evaluation
from textvae.text.nn.decoder import LSTMDecoder
from textvae.text.nn.encoder import LSTMEncoder
from textvae.vae.batch import Batch
from textvae.vae.clipping import cap, clip, clip_backward
from textvae.vae.heads import make_head
from textvae.vae.inference import infer
from textvae.vae.likelihood import Likelihood
from textvae.vae.objectives import elbo
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.priors import MixturePrior, StandardNormal
from textvae.vae.refinement import Problem, Unrolled
from textvae.vae.vae import VAE

SIZE, LATENT, WORDS = 5, 3, 7
PRIOR = StandardNormal(LATENT)
EXACT = Inference(
    "semi_amortized", steps=4, lr=0.7, hvp="exact", decoder_terms="all", max_growth=0.0
)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(WORDS, 2 * LATENT)

    def forward(self, batch):
        return DiagGaussian(*self.head(batch.x).chunk(2, dim=-1))


class Decoder(nn.Module):
    """Word counts from a softmax on top of a small network of z, with dropout."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.inner, self.outer = nn.Linear(LATENT, 9), nn.Linear(9, WORDS)
        self.dropout = dropout

    def log_prob(self, batch, z):
        hidden = F.dropout(torch.tanh(2 * self.inner(z)), self.dropout, self.training)
        return (batch.x * self.outer(hidden).log_softmax(-1)).sum(-1)


def model_of(dropout=0.0, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return VAE(Encoder(), Decoder(dropout), LATENT).to(dtype)


def batch_of(size=SIZE, dtype=torch.float64, seed=1):
    x = torch.rand(size, WORDS, generator=torch.Generator().manual_seed(seed)).to(dtype) * 6
    ones = torch.ones(size, dtype=torch.long)
    return Batch(x, ones, ones, ones, torch.arange(size))


def first(count, batch):
    columns = (batch.x, batch.lengths, batch.units, batch.num_bytes, batch.index)
    return Batch(*(column[:count] for column in columns))


def unrolled(model, batch, options, noise, beta, seeds):
    """The steps written out, for autograd to differentiate twice."""
    point = torch.stack(tuple(model.posterior(batch)))
    velocity = torch.zeros_like(point)
    scale = 1 / len(batch) if options.loss_per == "batch" else 1.0
    for eps, seed in zip(noise, seeds, strict=True):
        mean, logvar = point
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            z = mean + torch.exp(0.5 * logvar) * eps
            rec = model.decoder.log_prob(batch, z[None])[0]
        loss = beta * DiagGaussian(mean, logvar).kl_to(PRIOR).sum(-1) - rec
        (gradient,) = torch.autograd.grad(scale * loss.sum(), point, create_graph=True)
        if options.clip:
            dims = (1, 2) if options.clip_per == "batch" else 2
            norm = gradient.norm(dim=dims, keepdim=True)
            gradient = torch.where(norm > options.clip, gradient * options.clip / norm, gradient)
        velocity = options.momentum * velocity - gradient
        point = point + options.lr * velocity
    return DiagGaussian(*point)


def loss_of(model, batch, q, beta, seed):
    """Minus the ELBO at one draw of z from q."""
    torch.manual_seed(seed)
    z = q.rsample()
    return (beta * q.kl_to(PRIOR).sum(-1) - model.log_likelihood(batch, z)[0]).mean()


def gradients(model, batch, q, beta, seed=5):
    model.zero_grad()
    loss_of(model, batch, q, beta, seed).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def both_gradients(options, dropout=0.0, dtype=torch.float64, beta=0.8):
    """Our gradients, and those of full unrolling with the same noise and dropout."""
    model, batch = model_of(dropout, dtype), batch_of(dtype=dtype)
    noise = torch.randn(options.steps, SIZE, LATENT, dtype=dtype)
    torch.manual_seed(3)
    ours = gradients(
        model, batch, infer(model, batch, options, beta, step_noise(noise)).posterior, beta
    )
    torch.manual_seed(3)
    seeds = torch.randint(2**62, (options.steps,)).tolist()
    q = unrolled(model, batch, options, noise, beta, seeds)
    return ours, gradients(model, batch, q, beta)


def assert_close(ours, reference, tolerance):
    for name, gradient in reference.items():
        error = (ours[name] - gradient).norm() / gradient.norm()
        assert error < tolerance, (name, float(error))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize(
    "clipping",
    [
        {"clip": 0.0},
        {"clip": 0.3},
        {"clip": 0.8, "clip_per": "example", "loss_per": "example", "lr": 0.1},
    ],
)
def test_exact_gradients_are_those_of_full_unrolling(clipping, momentum, dropout):
    options = replace(EXACT, momentum=momentum, **clipping)
    assert_close(*both_gradients(options, dropout), 1e-10)


def test_gradients_in_that_test_are_really_clipped():
    options = replace(EXACT, clip=0.3)
    free, _ = both_gradients(replace(options, clip=0.0))
    clipped, _ = both_gradients(options)
    assert (free["encoder.head.weight"] - clipped["encoder.head.weight"]).norm() > 1e-3


def test_differences_agree_in_float32():
    options = replace(EXACT, hvp="difference")
    ours, _ = both_gradients(options, 0.4, torch.float32)
    exact, _ = both_gradients(EXACT, 0.4, torch.float32)
    assert_close(ours, exact, 1e-3)


def test_differences_survive_the_rounding_of_bf16():
    model, batch = model_of(dtype=torch.float32), batch_of(dtype=torch.float32)
    z, w = torch.randn(2, SIZE, LATENT, generator=torch.Generator().manual_seed(4))

    def likelihood():
        return Likelihood(partial(model.decoder.log_prob, batch), model.decoder, 1)

    product, by_weight = likelihood().exact(0, z, w, with_weights=True)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = likelihood()
        found = rounded.difference(0, z, w, rounded.gradient(0, z)[1])
        differences = rounded.weight_difference(0, z, w)
    assert (found - product).norm() < 0.5 * product.norm()
    for ours, exact in zip(differences, by_weight, strict=True):  # in full precision
        assert (ours - exact).norm() < 0.01 * exact.norm()


@pytest.mark.parametrize("hvp", ["exact", "difference"])
def test_one_sampled_decoder_term_is_an_unbiased_estimate_of_the_sum(hvp, monkeypatch):
    model, batch = model_of(), batch_of()
    noise = torch.randn(EXACT.steps, SIZE, LATENT, dtype=torch.float64)

    def weights(terms, lot=0.0):
        monkeypatch.setattr(torch, "rand", lambda _: torch.tensor(lot))
        options = replace(EXACT, decoder_terms=terms, hvp=hvp)
        found = gradients(
            model, batch, infer(model, batch, options, 1.0, step_noise(noise)).posterior, 1.0
        )
        monkeypatch.undo()
        return found["decoder.inner.weight"]

    none, every = weights("none"), weights("all")
    lots = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    drawn = {}
    mean = torch.zeros_like(none)
    for lot in lots[::20].tolist():  # an even grid selects each term with its probability
        term = weights("sample", lot)
        drawn[round(float(term.sum()), 9)] = True
        mean += term / len(lots[::20])
    assert len(drawn) == EXACT.steps  # every term can be drawn
    assert (mean - every).norm() < 0.05 * (every - none).norm()


def test_one_sampled_term_trains_a_learned_prior_as_all_do_on_average(monkeypatch):
    torch.manual_seed(0)
    model, batch = VAE(Encoder(), Decoder(), MixturePrior(LATENT, 4)).double(), batch_of()
    noise = torch.randn(2, SIZE, LATENT, dtype=torch.float64)

    def gradient(terms, lot=0.0):
        monkeypatch.setattr(torch, "rand", lambda _: torch.tensor(lot))
        options = replace(EXACT, steps=2, decoder_terms=terms)
        q = infer(model, batch, options, 1.0, step_noise(noise)).posterior
        monkeypatch.undo()
        return torch.autograd.grad(loss_of(model, batch, q, 1.0, 5), model.prior.means)[0]

    every = gradient("all")
    mean = torch.stack([gradient("sample", (lot + 0.5) / 40) for lot in range(40)]).mean(0)
    assert 0 < (mean - every).norm() < 0.05 * every.norm()


def test_the_encoder_gradient_does_not_depend_on_the_decoder_terms():
    all_terms, _ = both_gradients(EXACT)
    none, _ = both_gradients(replace(EXACT, decoder_terms="none"))
    assert torch.equal(all_terms["encoder.head.weight"], none["encoder.head.weight"])


@pytest.mark.parametrize("per", ["batch", "example"])
def test_clipping_and_its_backward_are_those_of_autograd(per):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 4, 3, dtype=torch.float64)
    limit = 1.7 if per == "example" else 1.0  # some examples above it, some below
    (expected,) = torch.autograd.grad(torch.stack(clip([*x], limit, per)), x, upstream)
    assert torch.allclose(torch.stack(clip_backward(upstream, x.detach(), limit, per)), expected)


def growth(model, batch, max_growth):
    """How much each example's gradient grows through the steps (B,), and the gradient (2, B, Z)."""
    options = replace(EXACT, lr=0.1, max_growth=max_growth, loss_per="example", clip=0.0)
    noise = torch.randn(EXACT.steps, len(batch), LATENT, generator=torch.Generator().manual_seed(4))
    start = DiagGaussian(*(part.detach().requires_grad_() for part in model.posterior(batch)))
    likelihood = Likelihood(partial(model.decoder.log_prob, batch), model.decoder, EXACT.steps)
    problem = Problem(likelihood, PRIOR, step_noise(noise.double()), options, 1.0)
    *found, _ = Unrolled.apply(problem, start, *start, *likelihood.weights)
    point = torch.stack(found)
    gradient = torch.stack(torch.autograd.grad(point.square().sum(), start))
    return gradient.norm(dim=(0, 2)) / (2 * point).norm(dim=(0, 2)), gradient


def test_only_gradients_that_grow_on_the_way_back_are_capped():
    model, batch = model_of(), batch_of()
    batch.x[2] *= 60  # one sentence with a curvature for which the steps are too long
    free, exact = growth(model, batch, 0.0)
    held, gradient = growth(model, batch, 3.0)
    assert free[2] > 100 and 1.0 < held[2] <= 3.0 + 1e-9
    others = torch.tensor([0, 1, 3, 4])
    assert (free[others] < 3).all() and torch.equal(gradient[:, others], exact[:, others])


def test_a_gradient_is_capped_at_its_initial_length():
    gradient = torch.tensor([[[3.0], [0.3], [0.0]], [[4.0], [0.4], [0.0]]])  # norms 5, 0.5, 0
    held = torch.stack(cap([*gradient], torch.tensor([1.0, 1.0, 0.0])))
    expected = torch.tensor([[[0.6], [0.3], [0.0]], [[0.8], [0.4], [0.0]]])
    assert torch.allclose(held, expected)


def test_steps_do_not_change_the_weights_and_work_in_evaluation():
    model, batch = model_of(0.5).eval(), batch_of()
    with torch.no_grad():
        q = infer(model, batch, EXACT).posterior
    assert not q.mean.requires_grad
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_step_never_lowers_the_elbo_it_climbs_on_a_smooth_case():
    model, batch = model_of(), batch_of(40)
    noise = torch.randn(1, 40, LATENT, dtype=torch.float64).expand(
        30, -1, -1
    )  # one fixed objective
    options = replace(EXACT, lr=0.05, momentum=0.0, loss_per="example", clip=0.0, steps=30)
    with torch.no_grad():
        elbo = infer(model, batch, options, noise=step_noise(noise)).elbo  # (K, B)
    assert (elbo[1:] >= elbo[:-1]).all()
    assert (elbo[-1] > elbo[0] + 0.01).any()


class LinearDecoder(nn.Module):
    """x ~ N(W z, s^2 I): the best mean-field posterior is known."""

    def __init__(self):
        super().__init__()
        loadings = [[1.0, 0.5, 0.0], [0.3, -0.5, 0.2], [0.0, 0.4, 1.1], [0.2, 0.0, 0.7]]
        self.loadings, self.variance = nn.Parameter(torch.tensor(loadings)), 0.5

    def log_prob(self, batch, z):
        return -0.5 * (batch.x - z @ self.loadings.t()).square().sum(-1) / self.variance


def test_svi_reaches_the_exact_mean_field_posterior():
    torch.manual_seed(0)
    decoder = LinearDecoder().double()
    x = torch.randn(1, 4, dtype=torch.float64)
    ones = torch.ones(256, dtype=torch.long)
    batch = Batch(x.expand(256, -1), ones, ones, ones, torch.arange(256))
    options = Inference("svi", steps=600, lr=0.03, momentum=0.5, loss_per="example", clip=0.0)
    q = infer(
        VAE(None, decoder, 3), batch, options, noise=step_noise(torch.randn(600, 256, 3).double())
    )
    loadings = decoder.loadings.detach()
    precision = torch.eye(3, dtype=torch.float64) + loadings.t() @ loadings / decoder.variance
    exact_mean = torch.linalg.solve(precision, (x @ loadings / decoder.variance)[0])
    # Mean field keeps the diagonal of the precision (Bishop 2006, section 10.1.2).
    assert torch.allclose(q.posterior.mean.mean(0), exact_mean, atol=0.02)
    variance = 1 / precision.diagonal()
    assert torch.allclose(q.posterior.logvar.mean(0), variance.log(), atol=0.03)


@pytest.mark.parametrize("kind", ["elbo", "kl"])
def test_an_encoder_that_does_not_learn_through_the_steps(kind):
    model, batch, beta = model_of(), batch_of(), 0.7
    noise = torch.randn(EXACT.steps, SIZE, LATENT, dtype=torch.float64)
    options = replace(EXACT, encoder=kind)
    inferred = infer(model, batch, options, beta, step_noise(noise))
    assert not inferred.posterior.mean.requires_grad  # the refined ELBO trains only the decoder
    q0 = model.posterior(batch)
    if kind == "kl":
        own, other = (
            torch.distributions.Normal(q.mean, (q.logvar / 2).exp())
            for q in (q0, inferred.posterior)
        )
        expected = torch.distributions.kl_divergence(own, other).sum(-1)
    else:
        z = q0.mean + torch.exp(q0.logvar / 2) * noise[0]
        expected = beta * q0.kl_to(PRIOR).sum(-1) - model.decoder.log_prob(batch, z[None])[0]
    assert torch.allclose(inferred.encoder_loss, expected)
    ours = torch.autograd.grad(inferred.encoder_loss.mean(), model.encoder.head.weight)[0]
    reference = torch.autograd.grad(expected.mean(), model.encoder.head.weight)[0]
    assert torch.allclose(ours, reference)


def test_the_encoders_own_loss_is_that_of_the_step_with_a_learned_prior():
    """The KL is estimated from the draw of the first step, not from another one."""
    torch.manual_seed(0)
    model, batch, beta = (
        VAE(Encoder(), Decoder(), MixturePrior(LATENT, 4)).double(),
        batch_of(),
        0.3,
    )
    noise = torch.randn(EXACT.steps, SIZE, LATENT, dtype=torch.float64)
    options = replace(EXACT, encoder="elbo")
    found = infer(model, batch, options, beta, step_noise(noise)).encoder_loss
    q0 = model.posterior(batch)
    z = (q0.mean + torch.exp(q0.logvar / 2) * noise[0])[None]
    own_kl = (q0.log_prob(z) - model.prior.log_prob(z))[0]
    expected = beta * own_kl - model.decoder.log_prob(batch, z)[0]
    assert torch.allclose(found, expected)
    weight = model.encoder.head.weight
    ours, theirs = (torch.autograd.grad(each.mean(), weight)[0] for each in (found, expected))
    assert torch.allclose(ours, theirs)


def test_the_loss_has_the_encoders_own_term():
    model, batch = model_of(), batch_of()
    torch.manual_seed(0)
    terms = model(batch, beta=0.5, inference=replace(EXACT, encoder="kl"))
    plain = 0.5 * terms.kl.sum(-1).mean() - terms.rec.mean()
    assert torch.allclose(elbo(terms, 0.5), plain + terms.encoder_loss.mean())
    assert terms.path.shape == (EXACT.steps, SIZE)


def test_steps_for_evaluation_equal_those_of_training_and_do_not_depend_on_the_batch():
    model, batch = model_of(), batch_of()
    noise = torch.randn(EXACT.steps, SIZE, LATENT, dtype=torch.float64)
    with torch.no_grad():
        trained = infer(model, batch, EXACT, noise=step_noise(noise)).posterior
        options = for_evaluation(EXACT, SIZE)
        together = infer(model, batch, options, noise=step_noise(noise)).posterior
        alone = infer(model, first(2, batch), options, noise=step_noise(noise[:, :2])).posterior
    assert torch.allclose(together.mean, trained.mean)
    assert torch.allclose(together.logvar, trained.logvar)
    assert torch.allclose(alone.mean, together.mean[:2])


@pytest.mark.parametrize("loss_per", ["batch", "example"])
def test_equal_gradients_are_clipped_in_evaluation_as_in_training(loss_per):
    gradient = torch.randn(1, 1, LATENT).expand(2, SIZE, LATENT).contiguous()  # of each loss
    training = Inference(clip=0.1, loss_per=loss_per)
    options = for_evaluation(training, SIZE)
    share = SIZE if loss_per == "batch" else 1
    gradient = gradient[0]  # (B, Z)
    (trained,) = clip([gradient / share], training.clip, training.clip_per)
    (evaluated,) = clip([gradient], options.clip, options.clip_per)
    assert torch.allclose(training.lr * trained, options.lr * evaluated)


def test_dropout_of_a_step_is_replayed():
    model, batch = model_of(0.5), batch_of()
    likelihood = Likelihood(lambda z: model.decoder.log_prob(batch, z), model.decoder, 2)
    z, state = torch.randn(SIZE, LATENT, dtype=torch.float64), torch.get_rng_state()
    first, again, other = (likelihood.gradient(k, z)[0] for k in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)  # the next draws are not those of a step


TEXT = {"dropout_in": 0.3, "dropout_out": 0.3}


def text_vae(injection="skip", dtype=torch.float64, **options):
    torch.manual_seed(0)
    sizes = {"embedding_dim": 6, "hidden_dim": 7}
    decoder = LSTMDecoder(11, 3, injection, num_layers=2, **sizes, **(TEXT | options))
    return VAE(LSTMEncoder(11, partial(make_head, latent_dim=3), **sizes), decoder, 3).to(dtype)


def text_batch():
    x = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 9, 3, 0], [2, 10, 3, 0, 0]])
    lengths = torch.tensor([4, 3, 2])
    return Batch(x, lengths, lengths, lengths, torch.arange(3))


def text_gradients(options, **how):
    model, batch = text_vae(**how), text_batch()
    weight = next(model.parameters())
    noise = torch.randn(options.steps, 3, 3, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    q = infer(model, batch, options, 0.8, step_noise(noise.to(weight))).posterior
    ours = gradients(model, batch, q, 0.8)
    torch.manual_seed(3)
    seeds = torch.randint(2**62, (options.steps,)).tolist()
    q = unrolled(model, batch, options, noise.to(weight), 0.8, seeds)
    return ours, gradients(model, batch, q, 0.8)


@pytest.mark.parametrize("injection", ["init", "input", "skip"])
def test_exact_gradients_through_an_lstm_are_those_of_full_unrolling(injection):
    assert_close(*text_gradients(replace(EXACT, clip=0.5), injection=injection), 1e-10)


def test_differences_through_an_lstm_agree_in_float32():
    ours, reference = text_gradients(replace(EXACT, hvp="difference"), dtype=torch.float32)
    assert_close(ours, reference, 1e-3)


def test_a_share_of_the_time_steps_is_an_unbiased_estimate():
    model, batch = text_vae(dropout_in=0.0, dropout_out=0.0), text_batch()
    z = torch.randn(1, 3, 3, dtype=torch.float64)
    torch.manual_seed(0)
    draws = torch.stack([model.decoder.log_prob(batch, z, share=0.4)[0] for _ in range(3000)])
    whole = model.decoder.log_prob(batch, z)[0]
    error = draws.std(0) / 3000**0.5
    assert ((draws.mean(0) - whole).abs() < 4 * error).all()
    assert (draws.std(0) > 0.1).all()


def test_a_share_is_resampled_for_every_step_and_replayed_in_the_backward_pass():
    options = replace(EXACT, token_share=0.5)
    model, batch = text_vae(), text_batch()
    q = infer(model, batch, options).posterior
    grads = gradients(model, batch, q, 1.0)
    assert all(g.isfinite().all() for g in grads.values())
    log_prob = lambda z: model.decoder.log_prob(batch, z, share=0.5)  # noqa: E731
    likelihood = Likelihood(log_prob, model.decoder, 9)
    z = torch.zeros(3, 3, dtype=torch.float64)
    first, again = (likelihood.gradient(0, z)[0] for _ in range(2))
    assert torch.equal(first, again)
    assert len({float(likelihood.gradient(k, z)[0][0]) for k in range(9)}) > 1


ONE_PROCESS = """
import os
import sys
import torch
from accelerate import Accelerator
from test_refinement import EXACT, batch_of, model_of
from dataclasses import replace
from textvae.vae.batch import Batch
from textvae.vae.objectives import elbo

accelerator = Accelerator()
rank, size = accelerator.process_index, accelerator.num_processes
def zeros(*shape, generator=None, **how):  # the same noise however divided
    return torch.zeros(*shape, **how)


torch.randn = zeros
whole = batch_of(8)
part = slice(rank * 8 // size, (rank + 1) * 8 // size)
batch = Batch(*(t[part] for t in (whole.x, whole.lengths, whole.units, whole.num_bytes,
                                  whole.index)))
options = replace(EXACT, loss_per=sys.argv[2], lr=0.8 / size if sys.argv[2] == "batch" else 0.1,
                  clip=0.0, hvp="difference")
model = accelerator.prepare(model_of())
for _ in range(2):  # the second backward pass meets a model whose gradients were gathered once
    model.zero_grad()
    accelerator.backward(elbo(model(batch, inference=options)))
gradients = {n.removeprefix("module."): p.grad for n, p in model.named_parameters()}
if rank == 0:
    torch.save(gradients, sys.argv[1])
accelerator.end_training()
sys.stdout.flush()
os._exit(0)  # threads of the process group can abort the interpreter's exit
"""


@pytest.mark.slow
@pytest.mark.parametrize("loss_per", ["batch", "example"])
def test_two_processes_refine_as_one_does_on_the_joined_batch(loss_per, tmp_path):
    script = tmp_path / "one_process.py"
    script.write_text(ONE_PROCESS, encoding="utf-8")
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.pathsep.join(paths)}
    found = []
    for processes in (1, 2):
        out = tmp_path / f"{processes}.pt"
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launch, str(script), str(out), loss_per]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        found.append(torch.load(out, weights_only=True))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("training", [True, False])
def test_differences_through_cudnn_are_those_of_the_cpu(training):
    options = replace(EXACT, hvp="difference")
    noise = torch.randn(options.steps, 3, 3)
    found = []
    for device in ("cpu", "cuda"):
        model = text_vae(dtype=torch.float32, dropout_in=0.0, dropout_out=0.0).to(device)
        model.train(training)
        batch = text_batch().to(device)
        q = infer(model, batch, options, 1.0, step_noise(noise.to(device))).posterior
        found.append(torch.autograd.grad(q.mean.sum() + q.logvar.sum(), [*model.parameters()]))
    for ours, reference in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours.cpu(), reference, rtol=2e-3, atol=1e-4)


class Ignorant(nn.Module):
    """A decoder that does not read z, with a weight or without."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(())) if weight else None

    def log_prob(self, batch, z):
        scale = 1.0 if self.weight is None else self.weight
        return scale * -batch.x.sum(-1).expand(len(z), -1)


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("hvp", ["exact", "difference"])
@pytest.mark.parametrize("terms", ["all", "sample", "none"])
def test_a_decoder_that_ignores_z_can_be_refined(weight, hvp, terms):
    torch.manual_seed(0)
    model = VAE(Encoder(), Ignorant(weight), LATENT).double()
    loss = elbo(model(batch_of(), inference=replace(EXACT, hvp=hvp, decoder_terms=terms)))
    loss.backward()
    assert model.encoder.head.weight.grad.isfinite().all()


class OneTensor(NamedTuple):
    """N(location, I), after a tensor that is never trained."""

    fixed: torch.Tensor
    location: torch.Tensor

    def rsample(self, samples=1, noise=None):
        return self.location + noise.normal(samples, LATENT) if noise else self.location[None]

    def log_prob(self, z):
        return -0.5 * (z - self.location).square().sum(-1)

    def center(self):
        return self.location


class OneTensorEncoder(Encoder):
    def forward(self, batch):
        return OneTensor(torch.ones(len(batch)).double(), self.head(batch.x)[:, :LATENT])


@pytest.mark.parametrize("kind", ["unrolled", "elbo", "kl"])
@pytest.mark.parametrize("per", ["batch", "example"])
def test_tensors_of_any_shape_are_refined_and_trained(kind, per):
    torch.manual_seed(0)
    model = VAE(OneTensorEncoder(), Decoder(), LATENT).double()
    options = replace(EXACT, encoder=kind, clip_per=per, max_growth=3.0)
    elbo(model(batch_of(), inference=options)).backward()
    assert model.encoder.head.weight.grad[:LATENT].abs().sum() > 0


@pytest.mark.parametrize("hvp", ["exact", "difference"])
def test_the_decoder_learns_through_the_steps_of_a_frozen_encoder(hvp):
    found = []
    for frozen in (False, True):
        model, batch = model_of(), batch_of()
        model.encoder.requires_grad_(not frozen)
        noise = torch.randn(EXACT.steps, SIZE, LATENT, generator=torch.Generator().manual_seed(2))
        options = replace(EXACT, hvp=hvp)
        q = infer(model, batch, options, 1.0, step_noise(noise.double())).posterior
        loss_of(model, batch, q, 1.0, 5).backward()
        found.append(model.decoder.inner.weight.grad.clone())
    torch.testing.assert_close(found[1], found[0])


class Constant(VAE):
    """A model whose likelihood is not that of its decoder alone: x does not depend on z."""

    def log_likelihood(self, batch, z):
        return 0 * z.sum(-1)


def test_refinement_climbs_on_the_likelihood_of_the_model():
    model = Constant(Encoder(), Decoder(), LATENT)
    options = Inference("semi_amortized", steps=200, lr=0.2, clip=0.0)
    refined = infer(model, batch_of(dtype=torch.float32), options).posterior
    assert refined.mean.abs().max() < 1e-3 and refined.logvar.abs().max() < 1e-2  # the prior


class Whole(nn.Module):
    """A model that cannot be taken apart into an encoder and a decoder."""

    def __init__(self):
        super().__init__()
        self.prior, self.parts = StandardNormal(LATENT), VAE(Encoder(), Decoder(), LATENT)

    def posterior(self, batch):
        return self.parts.posterior(batch)

    def log_likelihood(self, batch, z):
        return self.parts.log_likelihood(batch, z)


def test_a_model_without_a_decoder_of_its_own_can_be_refined():
    model, batch = Whole(), batch_of(dtype=torch.float32)
    options = Inference("semi_amortized", steps=3)
    noise = step_noise(torch.randn(3, SIZE, LATENT))
    found = infer(model, batch, options, noise=noise).posterior
    expected = infer(model.parts, batch, options, noise=noise).posterior
    torch.testing.assert_close(found, expected)


def test_the_encoder_alone_can_learn_through_the_steps():
    model, batch = model_of(), batch_of()
    model.decoder.requires_grad_(False)
    elbo(model(batch, inference=replace(EXACT, hvp="difference"))).backward()
    assert model.encoder.head.weight.grad.abs().sum() > 0
