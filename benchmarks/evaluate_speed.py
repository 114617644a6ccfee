"""What a metrics card costs: the importance-weighted bound per symbol, and mutual information.

python benchmarks/evaluate_speed.py [--hidden 1024 --vocab 20001 --samples 20 --sizes 1000 10000]
"""

import argparse
import time

import torch

from textvae.core.batch import Batch
from textvae.core.estimators import importance_bound, mutual_information
from textvae.core.gaussian import DiagGaussian
from textvae.core.vae import VAE
from textvae.rows import row_noise
from textvae.text.lstm import LSTMDecoder, LSTMEncoder

LENGTH, LATENT = 80, 32


def seconds(function, repeats=3):
    """The fastest of a few calls, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def bound_rows(hidden, vocab, samples, device):
    """(max_symbols, seconds, decoded symbols per second) of a batch of 32 documents."""
    encoder = LSTMEncoder(vocab, LATENT, hidden // 2, hidden)
    decoder = LSTMDecoder(vocab, LATENT, "skip", hidden // 2, hidden)
    model = VAE(encoder, decoder, LATENT).to(device).eval()
    lengths = torch.full((32,), LENGTH)
    x = torch.randint(4, vocab, (32, LENGTH + 1))
    batch = Batch(x, lengths, lengths, lengths, torch.arange(32)).to(device)
    for max_symbols in (2**12, 2**14, 2**16):
        with torch.no_grad():
            spent = seconds(
                lambda limit=max_symbols: importance_bound(
                    model, batch, samples, max_symbols=limit
                ),
                repeats=1,
            )
        yield max_symbols, spent, samples * 32 * LENGTH / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=20001)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10000])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    print(f"| IW bound, K = {args.samples}, max_symbols | s | symbols/s |\n|--:|--:|--:|")
    for limit, spent, rate in bound_rows(args.hidden, args.vocab, args.samples, args.device):
        print(f"| {limit} | {spent:.2f} | {rate:,.0f} |")
    print(f"\n| examples, z = {LATENT} | mutual information, s | its noise, s |\n|--:|--:|--:|")
    for size in args.sizes:
        q = DiagGaussian(torch.randn(size, LATENT), torch.full((size, LATENT), -1.0))
        index = torch.arange(size)
        noise = seconds(lambda index=index: row_noise(0, 0, index, 1, LATENT))
        print(f"| {size} | {seconds(lambda q=q: mutual_information(q)):.2f} | {noise:.2f} |")


if __name__ == "__main__":
    main()
