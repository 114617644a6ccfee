"""Every method trains as it did when it was written: the mean loss and KL of its first 20 updates.

A change that is meant to change a method's numbers changes its line here, in the same commit:
``python tests/test_pinned_losses.py`` prints them.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

import textvae

ROOT = Path(__file__).parent.parent
METHODS = sorted(path.stem for path in (ROOT / "recipes" / "methods").glob("*.yaml"))
SIZES = {"latent_dim": 4, "embedding_dim": 8, "encoder_hidden": 12, "decoder_hidden": 12}
SUBJECTS, VERBS, OBJECTS = ("cat", "dog", "bird"), ("sees", "likes"), ("tree", "house", "fish")
PINNED = {
    # loss and KL, nats per example
    "adam_encoder": (17.5853, 0.0082),
    "aggressive": (16.9170, 2.7077),
    "autoencode": (18.1933, 0.1202),
    "bag_of_words": (32.9296, 0.9560),
    "batch_norm": (17.1955, 0.4727),
    "beta": (17.5238, 0.1354),
    "condition": (15.8565, 0.3550),
    "cyclical": (17.4771, 0.2845),
    "denoising": (17.4878, 0.2388),
    "density_gap": (17.5502, 0.0518),
    "du": (17.6771, 1.2158),
    "free_bits": (18.1147, 0.4712),
    "init": (17.2836, 0.0676),
    "iwae": (17.2641, 0.4269),
    "linear": (17.4726, 0.2553),
    "lm": (17.6543, 0.0000),
    "logistic": (17.3835, 0.4609),
    "mdr": (20.9796, 2.1361),
    "mixture_prior": (17.7241, -0.0170),
    "mmd": (26.0338, 0.0098),
    "pooled": (17.4837, 0.1640),
    "sa_vae": (17.6743, 0.2070),
    "scale": (17.5382, 0.8898),
    "skip_sa_vae": (17.5214, 0.1642),
    "skip_vae": (17.4726, 0.2553),
    "svi": (17.6183, 0.0048),
    "vae": (17.6538, 0.0442),
    "vae_svi": (35.0412, 0.2225),
    "vae_svi_kl": (17.5271, 0.2452),
    "vamp_prior": (17.4547, 0.0113),
    "vmf": (17.3954, 2.6346),
    "wae": (26.0325, 0.0099),
    "word_dropout": (17.5509, 0.2526),
}


def loss_and_kl_of(method: str, folder: Path) -> tuple[float, float]:
    words = [(a, b, c) for a in SUBJECTS for b in VERBS for c in OBJECTS] * 5
    lines = [f"{a}\tthe {a} {b} the {c} ." for a, b, c in words]
    (folder / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "valid.txt").write_text("\n".join(lines[:18]), encoding="utf-8")
    file = ROOT / "recipes" / "methods" / f"{method}.yaml"
    # Methods that leave z out of the decoder, or have no z, keep their sizes; others are small.
    given = textvae.Config.load(file)
    sizes = SIZES | ({"latent_dim": 0} if given.model.latent_dim == 0 else {})
    config = textvae.Config.load(
        file,
        data={"dir": str(folder), "tokenized": True, "batch_size": 9},
        model=sizes,
        inference={"steps": 3, "loss_per": "example", "lr": 0.1},
        optim={"name": "adam", "lr": 0.01, "schedule": "constant"},
        train={
            "precision": "fp32",
            "threads": 1,
            "samples": 0,
            "log_every": 20,
            "max_steps": 20,
            "epochs": 2,
            "autoencode_epochs": given.train.autoencode_epochs / 5,
        },
    )
    textvae.train(config, folder / "run")
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    logged = next(row for row in rows if row["group"] == "train")
    return logged["loss"], logged.get("kl", 0.0)


def test_every_method_is_pinned():
    assert sorted(PINNED) == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_the_first_updates_have_the_loss_they_had(method, tmp_path):
    loss, kl = loss_and_kl_of(method, tmp_path)
    assert loss == pytest.approx(PINNED[method][0], rel=5e-4)
    # A method may change the loss by less than that, but then not its KL.
    assert kl == pytest.approx(PINNED[method][1], rel=0.03, abs=2e-4)


if __name__ == "__main__":
    for name in METHODS:
        with tempfile.TemporaryDirectory() as place:
            loss, kl = loss_and_kl_of(name, Path(place))
            print(f'    "{name}": ({loss:.4f}, {kl:.4f}),', file=sys.stdout, flush=True)
