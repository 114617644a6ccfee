"""Your own parts in a full training run: a decoder (GRU), a prior (a flow), and an objective.

The rest of the model, the loop with its checkpoints, and the evaluation are those of textvae.

    python examples/your_own_text_model.py
"""

import random
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import textvae


class GRUDecoder(nn.Module):
    """p(x|z) by a GRU that reads z with every word."""

    def __init__(self, vocab_size: int, latent_dim: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden)
        self.start = nn.Linear(latent_dim, hidden)
        self.gru = nn.GRU(hidden + latent_dim, hidden)
        self.output = nn.Linear(hidden, vocab_size)

    def log_prob(self, batch: textvae.Batch, z: Tensor) -> Tensor:
        """Log p(x|z), (K, B), for z (K, B, Z); x has <s> and </s>, and 0 is padding."""
        samples, size, _ = z.shape
        tokens = batch.x.t().repeat(1, samples)  # (T+1, K*B)
        z = z.reshape(samples * size, -1)
        inputs = torch.cat([self.embedding(tokens[:-1]), z.expand(len(tokens) - 1, -1, -1)], -1)
        states, _ = self.gru(inputs, torch.tanh(self.start(z))[None])
        log_p = self.output(states).float().log_softmax(-1)
        targets = tokens[1:]
        return (
            (log_p.gather(2, targets[..., None])[..., 0] * (targets != 0))
            .sum(0)
            .view(samples, size)
        )

    def stepper(self, z: Tensor) -> "GRUStepper":
        """Start decoding N sentences, for z (N, Z)."""
        return GRUStepper(self, z)


class GRUStepper:
    """The same decoder one word at a time: sampling and beam search need nothing else."""

    def __init__(self, decoder: GRUDecoder, z: Tensor) -> None:
        self.decoder, self.z, self.size = decoder, z, len(z)
        self.state = torch.tanh(decoder.start(z))  # (N, H)

    def step(self, tokens: Tensor) -> Tensor:
        """Read one word per sentence, (N,); return the logits of the next word, (N, V)."""
        inputs = torch.cat([self.decoder.embedding(tokens), self.z], -1)
        self.state = self.decoder.gru(inputs[None], self.state[None])[1][0]
        return self.decoder.output(self.state)

    def keep(self, rows: Tensor) -> None:
        """Continue with these sentences only."""
        self.z, self.state, self.size = self.z[rows], self.state[rows], len(rows)

    def move(self, rows: Tensor) -> None:
        """Copy the state of sentence rows[i], which has the same z, to sentence i."""
        self.state = self.state[rows]


class FlowPrior(nn.Module):
    """p(z) by affine couplings that turn z into noise (RealNVP: Dinh et al. 2017).

    Half of z is scaled and shifted by a function of the other half, which makes the Jacobian
    triangular: log p(z) = log N(u; 0, I) - sum of the log scales, for the noise u that gives z.
    """

    def __init__(self, latent_dim: int, couplings: int = 4, hidden: int = 32) -> None:
        super().__init__()
        self.latent_dim, self.half = latent_dim, latent_dim // 2
        rest = latent_dim - self.half
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(self.half, hidden), nn.Tanh(), nn.Linear(hidden, 2 * rest))
            for _ in range(couplings)
        )
        for net in self.nets:  # the identity: training starts from N(0, I)
            nn.init.zeros_(net[-1].weight)
            nn.init.zeros_(net[-1].bias)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log p(z), (...), for z (..., Z) on any device."""
        u, log_scales = z, z.new_zeros(z.shape[:-1])
        for net in reversed(self.nets):
            u = u.flip(-1)
            fixed, moved = u[..., : self.half], u[..., self.half :]
            log_scale, shift = net(fixed).chunk(2, -1)
            u = torch.cat([fixed, (moved - shift) * torch.exp(-log_scale)], -1)
            log_scales = log_scales + log_scale.sum(-1)
        return torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(-1) - log_scales

    @torch.no_grad()
    def sample(self, count: int, noise: textvae.RowNoise | None = None) -> Tensor:
        """Draws on the CPU, (count, Z): the same noise gives the same z on every device."""
        u = (
            torch.randn(count, self.latent_dim)
            if noise is None
            else noise.normal(1, self.latent_dim)[0]
        )
        z = u.to(self.nets[0][0].weight.device)
        for net in self.nets:
            fixed, moved = z[..., : self.half], z[..., self.half :]
            log_scale, shift = net(fixed).chunk(2, -1)
            z = torch.cat([fixed, moved * torch.exp(log_scale) + shift], -1).flip(-1)
        return z.cpu()


class GRUTextVAE(textvae.TextVAE):
    """A TextVAE with these parts; ``couplings`` is saved with the model."""

    def __init__(self, couplings: int = 4, **options) -> None:
        self.couplings = couplings  # before the parts are made
        super().__init__(**options)

    def make_decoder(self, config: dict) -> nn.Module:
        return GRUDecoder(config["vocab_size"], config["latent_dim"], config["decoder_hidden"])

    def make_prior(self, config: dict) -> nn.Module:
        return FlowPrior(config["latent_dim"], self.couplings)


def kl_target(terms: textvae.Terms, beta: float, target: float) -> Tensor:
    """-rec + beta |KL - target| (Burgess et al. 2018); beta is 0 while the model autoencodes."""
    return beta * (terms.kl.sum(-1).mean() - target).abs() - terms.rec.mean()


def write_texts(path: Path, count: int = 3000) -> None:
    """Write short sentences: who does what to whom, and where."""
    draw = random.Random(0)
    who = [f"{a} {b}" for a in ("the", "a", "my") for b in ("cat", "dog", "bird", "cow", "bee")]
    does, where = ("sees", "likes", "wants", "hears"), ("here", "at home", "in town", "at sea")
    words = (who, does, who, where)
    lines = [f"{' '.join(draw.choice(part) for part in words)} ." for _ in range(count)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(folder: Path, epochs: int = 4) -> textvae.Card:
    """Train a model with these parts, print some sentences, and return its metrics card."""
    write_texts(folder / "texts.txt")
    config = textvae.Config.load(
        data={"dir": str(folder / "texts.txt"), "tokenized": True},
        model={"latent_dim": 6, "embedding_dim": 32, "encoder_hidden": 64, "decoder_hidden": 64}
        | {"init_scale": None},
        objective={"kl_epochs": 1.0},
        optim={"name": "adam", "lr": 0.01},
        train={"autoencode_epochs": 8, "autoencode_decoder": "keep", "epochs": epochs},
    )
    model = textvae.train(
        config,
        folder / "run",
        model_class=partial(GRUTextVAE, couplings=4),
        objective=partial(kl_target, target=6.0),
    )
    print(
        *model.sample(5, seed=0),
        *model.interpolate("the cat sees a dog here .", "my cow wants the bee at sea ."),
        sep="\n",
    )
    return textvae.evaluate_run(folder / "run", model=model, samples=20)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(main(Path(place)))
