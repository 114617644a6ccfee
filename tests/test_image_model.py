"""ImageVAE: what it computes, what it learns, what it refuses, and its folder."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from textvae.builders.model import load_model
from textvae.config.inference import AMORTIZED, Inference
from textvae.errors import UserError
from textvae.evaluation.evaluate import evaluate
from textvae.images.datasets import as_batch
from textvae.images.decoders import MLPDecoder, bernoulli_log_prob
from textvae.images.encoders import _Residual
from textvae.images.model import ImageVAE
from textvae.vae.objectives import elbo
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.vae import VAE

SIDE = 8
SMALL = {"encoder_hidden": 12, "encoder_layers": 2, "decoder_hidden": 12, "decoder_layers": 2}
KINDS = [
    ("pixelcnn", "none"),
    ("pixelcnn", "input"),
    ("pixelcnn", "skip"),
    ("mlp", "input"),
    ("mlp", "skip"),
]


def build(latent_dim: int = 3, **options) -> ImageVAE:
    torch.manual_seed(0)
    return ImageVAE(SIDE, SIDE, latent_dim, **{**SMALL, **options}).eval()


def images(count: int, side: int = SIDE) -> torch.Tensor:
    noise = torch.rand(count, side, side, generator=torch.Generator().manual_seed(0))
    return (noise < 0.3).float()


def batch(count: int = 5):
    return as_batch(images(count), torch.arange(count))


def test_bernoulli_against_torch():
    logits, x = torch.randn(4, 9) * 5, (torch.rand(4, 9) < 0.5).float()
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(-1)
    torch.testing.assert_close(bernoulli_log_prob(logits, x), expected)
    extreme = bernoulli_log_prob(torch.tensor([1e4, -1e4]), torch.tensor([1.0, 1.0]))
    assert float(extreme) == -1e4


def test_log_prob_of_an_mlp_is_a_loop_over_pixels():
    decoder, z, some = build(decoder="mlp").decoder, torch.randn(2, 5, 3), batch()
    chances = decoder(z).sigmoid()
    for k in range(2):
        for b in range(5):
            pixels = some.x[b].flatten()
            total = sum(
                math.log(float(p if on else 1 - p))
                for p, on in zip(chances[k, b].detach(), pixels, strict=True)
            )
            found = float(decoder.log_prob(some, z)[k, b].detach())
            assert found == pytest.approx(total, rel=1e-5)


@torch.no_grad()
def test_skip_adds_a_map_of_z_to_every_layer_but_the_first_and_the_last():
    plain, skip = (MLPDecoder((4, 4), 3, skip, 6, 4) for skip in (False, True))
    extra = {name: p.shape for name, p in skip.named_parameters()}
    for name, _ in plain.named_parameters():
        extra.pop(name)
    assert extra == {f"skips.{i}.weight": (6, 3) for i in range(3)}
    for layer in (*plain.hidden, *skip.hidden):  # cut off: only the skips bring z to the top
        layer.weight.zero_()
    z = torch.randn(2, 3)
    torch.testing.assert_close(plain(z)[0], plain(z)[1])
    assert float((skip(z)[0] - skip(z)[1]).abs().max()) > 1e-3


class Given(nn.Module):
    """An encoder that returns the same posterior for every image."""

    def __init__(self, mean: torch.Tensor, logvar: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.logvar = nn.Parameter(mean), nn.Parameter(logvar)

    def forward(self, batch) -> DiagGaussian:
        return DiagGaussian(self.mean.expand(len(batch), -1), self.logvar.expand(len(batch), -1))


def test_the_elbo_of_a_decoder_that_ignores_z_is_known():
    """p(x|z) = prod_i p_i^{x_i} (1 - p_i)^{1 - x_i}: rec and KL are sums of logarithms."""
    decoder = MLPDecoder((SIDE, SIDE), 2, False, 4, 1)
    logits = torch.linspace(-2, 2, SIDE * SIDE)
    with torch.no_grad():
        decoder.output.weight.zero_()
        decoder.output.bias.copy_(logits)
    mean, logvar = torch.tensor([0.5, -1.0]), torch.tensor([-0.7, 0.2])
    terms = VAE(Given(mean, logvar), decoder, 2)(batch())
    p = logits.sigmoid()
    x = batch().x.flatten(1)
    rec = (x * p.log() + (1 - x) * (1 - p).log()).sum(1)
    kl = sum(
        0.5 * (m**2 + math.exp(v) - 1 - v) for m, v in zip((0.5, -1), (-0.7, 0.2), strict=True)
    )
    torch.testing.assert_close(terms.elbo, rec - kl, rtol=1e-5, atol=1e-4)


def test_the_elbo_of_a_linear_decoder_is_its_integral():
    """One pixel, one layer that passes z > 0 through: logit = a z + b. E_q[log p(x=1|z)] =
    -E_q[softplus(-(a z + b))], an integral over one dimension that quadrature gives."""
    a, b, mean, sd = 1.5, -0.4, 3.0, 0.2  # q has no mass below 0, where the ReLU would show
    decoder = MLPDecoder((1, 1), 1, False, 1, 1)
    with torch.no_grad():
        decoder.first.weight.fill_(1)
        decoder.first.bias.zero_()
        decoder.output.weight.fill_(a)
        decoder.output.bias.fill_(b)
    q = Given(torch.tensor([mean]), torch.tensor([2 * math.log(sd)]))
    model = VAE(q, decoder, 1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    inner = np.log1p(np.exp(-(a * (mean + sd * nodes) + b)))
    rec = -(weights * inner).sum() / math.sqrt(2 * math.pi)
    kl = 0.5 * (mean**2 + sd**2 - 1 - 2 * math.log(sd))
    torch.manual_seed(0)
    some = as_batch(torch.ones(1, 1, 1), torch.arange(1))
    with torch.no_grad():
        draws = model(some, samples=200_000)
    assert float(draws.elbo) == pytest.approx(rec - kl, abs=2e-4)


@pytest.mark.parametrize(("decoder", "injection"), KINDS)
@pytest.mark.parametrize("encoder", ["resnet", "mlp"])
def test_every_parameter_gets_a_gradient(decoder, injection, encoder):
    model = build(decoder=decoder, injection=injection, encoder=encoder).train()
    elbo(model(batch())).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


@pytest.mark.parametrize(("decoder", "injection"), KINDS[1:])
def test_eight_images_are_memorized(decoder, injection):
    torch.manual_seed(0)
    sizes = {"encoder_hidden": 64, "decoder_hidden": 64 if decoder == "mlp" else 16}
    model = build(8, encoder="mlp", decoder=decoder, injection=injection, **sizes).train()
    some, optimizer = batch(8), torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = elbo(model(some), beta=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rec = float(model(some).rec.detach().mean())
    assert rec > -3  # for 64 pixels; a coin flip for each would give -44
    again = model.eval().reconstruct(images(8))
    assert float(((again > 0.5) == (images(8) > 0.5)).float().mean()) > 0.97


@pytest.mark.parametrize("inference", ["semi_amortized", "svi"])
@pytest.mark.parametrize("decoder", ["pixelcnn", "mlp"])
def test_refinement_works_for_images_without_special_code(inference, decoder):
    layers = 0 if inference == "svi" else 2
    model = build(decoder=decoder, encoder_layers=layers).train()
    options = Inference(method=inference, steps=3, lr=0.5, hvp="exact", decoder_terms="all")
    terms = model(batch(), inference=options)
    elbo(terms).backward()
    assert terms.path.shape[0] == 3
    assert all(p.grad is not None for p in model.parameters())
    steps = Inference(inference, 20, lr=0.1, loss_per="example", clip_per="example")
    start, refined = (
        evaluate(model.eval(), [batch(20)], samples=100, inference=options)["elbo"]
        for options in (AMORTIZED, steps)
    )
    assert refined > start


def test_a_card_of_images_has_bits_per_pixel_and_no_words():
    model = build()
    card = evaluate(model, [batch()], samples=7)
    assert card["ppl_iw"] is None and card["bits_per_byte_iw"] is None and card["units"] == 0
    assert card["bits_per_dim_iw"] == pytest.approx(-card["iw"] / (64 * math.log(2)))
    split = evaluate(model, [as_batch(images(5)[i : i + 1], torch.tensor([i])) for i in range(5)])
    assert split["kl"] == pytest.approx(card["kl"], rel=1e-5)


def test_without_a_latent_it_is_a_density_model():
    model = build(0, injection="none")
    assert not model.has_encoder and model.sample(3).shape == (3, SIDE, SIDE)
    card = evaluate(model, [batch()])
    assert card["kl"] == 0 and card["iw"] == pytest.approx(card["rec"])
    with pytest.raises(UserError, match="has no latent"):
        model.encode(images(1))


WRONG = {
    "init": (
        {"injection": "init"},
        "only a recurrent decoder has: .* choose none or input or skip",
    ),
    "init mlp": ({"injection": "init", "decoder": "mlp"}, "the mlp decoder, choose input or skip"),
    "none mlp": ({"injection": "none", "decoder": "mlp"}, "without any input"),
    "unknown": ({"injection": "later"}, "later: choose one of none, init"),
    "an even kernel": ({"kernel_size": 4}, "must be odd"),
    "too deep": ({"encoder": "resnet", "encoder_layers": 4}, "too many halvings"),
    "no encoder": ({"encoder": "lstm"}, "one of resnet, mlp"),
    "a float": ({"decoder_layers": 2.0}, "must be an integer"),
    "no latent": ({"latent_dim": 0}, "leaves no z for injection skip: use injection none"),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_arguments_are_one_line(case):
    options, message = WRONG[case]
    with pytest.raises(UserError, match=message) as error:
        build(**options)
    assert "\n" not in str(error.value)


def test_no_images_have_no_posteriors_and_no_reconstructions():
    model = build()
    for nothing in ([], torch.zeros(0, SIDE, SIDE)):
        assert model.encode(nothing).mean.shape == (0, model.latent_dim)
        assert model.reconstruct(nothing).shape == (0, SIDE, SIDE)


@pytest.mark.parametrize("decoder", ["pixelcnn", "mlp"])
def test_image_i_depends_only_on_the_seed_and_on_i(decoder):
    model = build(decoder=decoder)
    whole = model.sample(7, seed=1)
    assert set(whole.unique().tolist()) <= {0.0, 1.0}
    assert bool((whole[:3] == model.sample(3, seed=1)).all())
    assert torch.equal(whole[3:], model.sample(4, seed=1, first_row=3, batch_size=3))
    assert float((whole == model.sample(7, seed=1, batch_size=2)).float().mean()) > 0.99
    assert bool((whole != model.sample(7, seed=2)).any())


@pytest.mark.parametrize("decoder", ["pixelcnn", "mlp"])
def test_images_with_the_same_draws_differ_only_because_of_z(decoder):
    model = build(decoder=decoder)
    z = torch.randn(1, model.latent_dim).expand(5, -1)
    alike = model.decode(z, do_sample=True, same_draws=True, batch_size=3)
    assert bool((alike == alike[0]).all())
    assert bool((model.decode(z, do_sample=True) != alike).any())


def test_encode_reconstruct_interpolate_walk():
    model = build(2, decoder="mlp")
    q = model.encode(images(5), batch_size=2)
    torch.testing.assert_close(q.mean, model.posterior(batch()).mean)
    torch.testing.assert_close(model.reconstruct(images(5)), model.decode(q.mean))
    way = model.interpolate(images(2)[0], images(2)[1], steps=4)
    torch.testing.assert_close(way[[0, -1]], model.reconstruct(images(2)))
    walk = model.walk(3)
    assert walk.shape == (9, SIDE, SIDE)
    torch.testing.assert_close(walk[4:5], model.decode(torch.zeros(1, 2)), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="a walk needs 2 latent dimensions, but this model has 3"):
        build(3).walk()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(2, 5, 8), r"must be \(N, 8, 8\)"),
        (torch.full((1, 8, 8), 255), "divide bytes by 255"),
        (["a sentence"], "images must be arrays of numbers"),
    ],
)
def test_wrong_images_are_one_line(wrong, message):
    with pytest.raises(UserError, match=message):
        build().encode(wrong)


@pytest.mark.parametrize(("decoder", "injection"), KINDS)
def test_a_folder_gives_the_model_back(decoder, injection, tmp_path):
    model = build(decoder=decoder, injection=injection, encoder="resnet")
    model.train()(batch())  # moves the running means of batch normalization
    model.eval().save_pretrained(tmp_path)
    for loaded in (ImageVAE.from_pretrained(tmp_path), load_model(str(tmp_path))):
        assert isinstance(loaded, ImageVAE) and not loaded.training
        torch.testing.assert_close(loaded.encode(images(3)).mean, model.encode(images(3)).mean)
        assert bool((loaded.sample(2) == model.sample(2)).all())
    card = (tmp_path / "README.md").read_text()
    assert "from textvae import ImageVAE" in card and "image" in card
    with pytest.raises(UserError, match="device nowhere: "):
        load_model(str(tmp_path), device="nowhere")
    with pytest.raises(TypeError, match="nonsense"):
        load_model(str(tmp_path), nonsense=3)


@pytest.mark.parametrize(
    "options, kind",
    [
        ({}, "with 3 latent dimensions, an MLP encoder, and a PixelCNN decoder"),
        ({"encoder_layers": 0}, "with 3 latent dimensions, no encoder, and a PixelCNN decoder"),
        ({"latent_dim": 0}, "A PixelCNN for binary images, the baseline without a latent variable"),
    ],
)
def test_the_model_card_says_which_parts_there_are(options, kind):
    shape = {"latent_dim": 3, "encoder": "mlp", "decoder": "pixelcnn", **options}
    shape |= {"injection": "input" if shape["latent_dim"] else "none"}
    assert kind in ImageVAE(SIDE, SIDE, **shape).describe().kind


def test_a_folder_of_another_kind_is_one_line(tmp_path):
    build().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    from textvae.text.model import TextVAE

    with pytest.raises(UserError, match="is of the class ImageVAE, not TextVAE"):
        TextVAE.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "colours": 3}))
    with pytest.raises(UserError, match="has no option 'colours'"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**config, "decoder_hidden": 13}))
    with pytest.raises(UserError, match="does not fit"):
        load_model(str(tmp_path))


def test_a_walk_is_a_grid_of_prior_quantiles_where_upward_is_positive(monkeypatch):
    model, seen = build(2, decoder="mlp"), []
    monkeypatch.setattr(model, "decode_path", lambda z: seen.append(z))
    model.walk(2)
    q = 0.6744898  # the third quartile of N(0, 1)
    torch.testing.assert_close(seen[0], torch.tensor([[-q, q], [q, q], [-q, -q], [q, -q]]))


def test_the_seed_decides_the_pixels_at_a_given_z():
    model = build(decoder="mlp")
    z = torch.zeros(5, model.latent_dim)
    first, second = (model.decode(z, do_sample=True, seed=seed) for seed in (0, 1))
    assert bool((first != second).any())


def test_skip_joins_z_before_the_relu():
    decoder = MLPDecoder((1, 1), 1, True, 1, 2)
    for name, parameter in decoder.named_parameters():
        nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
    z = torch.tensor([[-2.0], [0.5]])
    torch.testing.assert_close(decoder(z), torch.tensor([[0.0], [1.0]]))  # relu(relu(z) + z)


def test_a_residual_block_adds_before_the_relu():
    block = _Residual(1, 1).eval()
    block.body[3].weight.data.zero_()  # f(x) = 0
    x = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(block(x), x.relu())
