"""Your own model: an MLP encoder and decoder over bags of words, trained and measured by textvae.

An encoder maps a batch to a posterior, and a decoder scores a batch given z. Everything else (the
bound, free bits, the metrics card) works with any pair of modules that do this.

    python examples/your_own_model.py
"""

import torch
from torch import nn

import textvae

WORDS, TOPICS, LATENT = 200, 8, 4


class Encoder(nn.Module):
    """q(z|x) from the counts of words x (B, WORDS)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(WORDS, 64), nn.ReLU())
        self.head = textvae.GaussianHead(64, LATENT)

    def forward(self, batch: textvae.Batch) -> textvae.DiagGaussian:
        return self.head(self.body(torch.log1p(batch.x)))


class Decoder(nn.Module):
    """log p(x|z): every word of a document is drawn from one softmax over the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(LATENT, 64), nn.ReLU(), nn.Linear(64, WORDS))

    def log_prob(self, batch: textvae.Batch, z: torch.Tensor) -> torch.Tensor:
        return (batch.x * self.body(z).log_softmax(-1)).sum(-1)  # (K, B) for z (K, B, LATENT)


def documents(count: int) -> torch.Tensor:
    """Word counts (count, WORDS) of documents of 50 words, each about one of a few topics."""
    topics = torch.distributions.Dirichlet(torch.full((TOPICS, WORDS), 0.05)).sample()
    words = torch.multinomial(topics[torch.arange(count) % TOPICS] + 1e-4, 50, replacement=True)
    return torch.zeros(count, WORDS).scatter_add_(1, words, torch.ones(count, 50))


def batches(x: torch.Tensor, size: int = 64) -> list[textvae.Batch]:
    """Documents (N, WORDS) in batches, with their numbers of words: the card is per word."""
    rows, words = torch.arange(len(x)), x.sum(1).long()
    return [
        textvae.Batch(x[part], lengths=words[part], units=words[part], index=part)
        for part in rows.split(size)
    ]


def main(steps: int = 500) -> textvae.Card:
    """Train the model and return its metrics card."""
    torch.manual_seed(0)
    x = documents(1200)
    model = textvae.VAE(Encoder(), Decoder(), prior=LATENT)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        terms = model(textvae.Batch(x[torch.randint(1000, (64,))]))
        beta = min(1.0, step / (0.5 * steps))  # KL annealing
        loss = textvae.elbo(terms, beta=beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return textvae.evaluate(model, batches(x[1000:]), samples=100)


if __name__ == "__main__":
    print(main())
