"""Is the latent variable of *your* VAE used? Find out without changing its code.

The model below is a typical tutorial VAE: ``encode`` returns a mean and a log variance, and
``decode`` returns logits. A few lines adapt it, and the diagnosis says what z carries.

    python examples/diagnose_any_vae.py
"""

import torch
from torch import nn
from torch.nn import functional as F

import textvae


class TutorialVAE(nn.Module):
    """A VAE for binary vectors that knows nothing about textvae."""

    def __init__(self, inputs: int = 20, latent: int = 5, hidden: int = 50) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU())
        self.mu, self.logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, inputs)
        )

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.encoder(x)
        return self.mu(h), self.logvar(h)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z)


class AsEncoder(nn.Module):
    """The tutorial model's encoder as textvae sees it."""

    def __init__(self, vae: TutorialVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, batch: textvae.Batch) -> textvae.DiagGaussian:
        return textvae.DiagGaussian(*self.vae.encode(batch.x))


class AsDecoder(nn.Module):
    """The tutorial model's decoder as textvae sees it."""

    def __init__(self, vae: TutorialVAE) -> None:
        super().__init__()
        self.vae = vae

    def log_prob(self, batch: textvae.Batch, z: torch.Tensor) -> torch.Tensor:
        logits = self.vae.decode(z)  # (K, B, inputs)
        return -F.binary_cross_entropy_with_logits(
            logits, batch.x.expand_as(logits), reduction="none"
        ).sum(-1)


def diagnose(vae: TutorialVAE, x: torch.Tensor) -> textvae.Diagnosis:
    """Diagnose the model on a dataset x (N, inputs)."""
    model = textvae.VAE(AsEncoder(vae), AsDecoder(vae), prior=5)
    return textvae.diagnose(model, x.split(64))  # textvae.evaluate: the whole metrics card


def data(count: int) -> torch.Tensor:
    """Binary vectors made from one of four prototypes, with a tenth of the bits flipped."""
    generator = torch.Generator().manual_seed(1)
    prototypes = torch.rand(4, 20, generator=generator) < 0.5
    flips = torch.rand(count, 20, generator=generator) < 0.1
    return (prototypes[torch.arange(count) % 4] ^ flips).float()


def main(steps: int = 400) -> tuple[textvae.Diagnosis, textvae.Diagnosis]:
    """Train two models, one with a KL weight that makes z collapse, and diagnose them."""
    torch.manual_seed(0)
    x, found = data(600), []
    for beta in (1.0, 20.0):
        vae = TutorialVAE()
        model = textvae.VAE(AsEncoder(vae), AsDecoder(vae), prior=5)
        optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
        for _ in range(steps):
            loss = textvae.elbo(model(textvae.Batch(x[torch.randint(500, (64,))])), beta=beta)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(diagnose(vae, x[500:]))
    return found[0], found[1]


if __name__ == "__main__":
    for title, diagnosis in zip(("beta = 1", "beta = 20"), main(), strict=True):
        print(title, diagnosis, sep="\n\n")
