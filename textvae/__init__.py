"""textvae: text variational autoencoders that use their latent variable.

The names below are the public interface. They are imported on first use, because torch takes
seconds to load.

Models and runs, as on the command line:

    model = textvae.train(textvae.Config.load("base.yaml"), "runs/skip")
    model = textvae.load("runs/skip")                  # a run, a saved model, or a name on the Hub
    model.sample(5), model.reconstruct(texts), model.encode(texts)
    textvae.evaluate_run("runs/skip"), textvae.compare(["runs/vae", "runs/skip"])
    textvae.probe("runs/skip"), textvae.map("runs/skip", "map.png")
    textvae.sweep("base.yaml", out="runs/sizes", vary={"model.latent_dim": [2, 10]})
    textvae.report(["runs/vae", "runs/skip"], "report.html")
    textvae.score_file("runs/skip", "texts.txt"), textvae.neighbors("runs/skip", "a sentence")

Building blocks for your own models, which work with any ``torch.nn.Module``:

    model = textvae.VAE(encoder, decoder, textvae.StandardNormal(32))
    loss = textvae.elbo(model(textvae.Batch(x)), beta=1.0)
    card = textvae.evaluate(model, batches)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textvae.builders.model import load_model as load
    from textvae.config.experiment import Config
    from textvae.config.inference import Inference
    from textvae.errors import UserError
    from textvae.evaluation.bounds.bounds import bounds
    from textvae.evaluation.bounds.result import Bounds
    from textvae.evaluation.bounds.run_bounds import bounds_run
    from textvae.evaluation.comparison.compare import compare
    from textvae.evaluation.comparison.results import results
    from textvae.evaluation.diagnosis.diagnose import diagnose
    from textvae.evaluation.diagnosis.result import Diagnosis
    from textvae.evaluation.diagnosis.run_diagnosis import diagnose_run
    from textvae.evaluation.evaluate import evaluate
    from textvae.evaluation.evaluate_run import evaluate_run
    from textvae.evaluation.explanation.explain import explain
    from textvae.evaluation.explanation.explain_run import explain_run
    from textvae.evaluation.explanation.result import Explanation
    from textvae.evaluation.latent.arithmetic import attribute_vector
    from textvae.evaluation.latent.fit_sampler import fit_mixture, fit_sampler
    from textvae.evaluation.latent.map import draw_map as map  # noqa: F401
    from textvae.evaluation.latent.neighbors import neighbors
    from textvae.evaluation.latent.probe import probe
    from textvae.evaluation.latent.traversal import traverse
    from textvae.evaluation.metrics.card import Card
    from textvae.evaluation.open_run import Opening
    from textvae.evaluation.report import report
    from textvae.evaluation.scoring.detection import detect
    from textvae.evaluation.scoring.score import score, score_file
    from textvae.evaluation.search.optimize import optimize
    from textvae.images.model import ImageVAE
    from textvae.images.pixelcnn import PixelCNN
    from textvae.text.decode.consistency import check_stepper
    from textvae.text.model import TextVAE
    from textvae.text.nn.decoder import LSTMDecoder as SkipLSTMDecoder
    from textvae.text.nn.encoder import LSTMEncoder
    from textvae.text.tokenizers import (
        CharTokenizer,
        SentencePieceTokenizer,
        SmilesTokenizer,
        WordTokenizer,
    )
    from textvae.training.interrupt import Interrupted
    from textvae.training.reproduce import reproduce
    from textvae.training.sweeps.sweep import sweep
    from textvae.training.train import train
    from textvae.vae.batch import Batch
    from textvae.vae.condition_embeddings import ConditionalDecoder, make_embedding
    from textvae.vae.contracts import Posterior, Prior, Terms
    from textvae.vae.estimators import active_units, importance_bound, mutual_information
    from textvae.vae.heads import BatchNormHead, DUHead, GaussianHead, ScaleHead, VonMisesFisherHead
    from textvae.vae.inference import infer
    from textvae.vae.noise import Purpose, RowNoise
    from textvae.vae.objectives import (
        WithBagOfWords,
        WithDensityGap,
        WithMinimumKL,
        WithMMD,
        density_gap,
        elbo,
        free_bits,
        iwae,
        kl_weight,
        mmd,
    )
    from textvae.vae.posteriors import DiagGaussian, kl
    from textvae.vae.priors import MixturePrior, StandardNormal, VampPrior
    from textvae.vae.samplers import MixtureSampler
    from textvae.vae.vae import VAE
    from textvae.vae.von_mises_fisher import UniformSphere, VonMisesFisher

__version__ = "0.2.0"

# Where each public name comes from: a module, and the name there if it differs.
_SOURCES = {
    "TextVAE": "textvae.text.model",
    "ImageVAE": "textvae.images.model",
    "Config": "textvae.config.experiment",
    "load": "textvae.builders.model:load_model",
    "train": "textvae.training.train",
    "sweep": "textvae.training.sweeps.sweep",
    "reproduce": "textvae.training.reproduce",
    "evaluate": "textvae.evaluation.evaluate",
    "evaluate_run": "textvae.evaluation.evaluate_run",
    "Card": "textvae.evaluation.metrics.card",
    "Opening": "textvae.evaluation.open_run",
    "compare": "textvae.evaluation.comparison.compare",
    "results": "textvae.evaluation.comparison.results",
    "bounds": "textvae.evaluation.bounds.bounds",
    "bounds_run": "textvae.evaluation.bounds.run_bounds",
    "Bounds": "textvae.evaluation.bounds.result",
    "diagnose": "textvae.evaluation.diagnosis.diagnose",
    "diagnose_run": "textvae.evaluation.diagnosis.run_diagnosis",
    "explain": "textvae.evaluation.explanation.explain",
    "explain_run": "textvae.evaluation.explanation.explain_run",
    "Explanation": "textvae.evaluation.explanation.result",
    "Diagnosis": "textvae.evaluation.diagnosis.result",
    "fit_mixture": "textvae.evaluation.latent.fit_sampler",
    "fit_sampler": "textvae.evaluation.latent.fit_sampler",
    "probe": "textvae.evaluation.latent.probe",
    "map": "textvae.evaluation.latent.map:draw_map",
    "report": "textvae.evaluation.report",
    "score": "textvae.evaluation.scoring.score",
    "score_file": "textvae.evaluation.scoring.score",
    "detect": "textvae.evaluation.scoring.detection",
    "traverse": "textvae.evaluation.latent.traversal",
    "attribute_vector": "textvae.evaluation.latent.arithmetic",
    "neighbors": "textvae.evaluation.latent.neighbors",
    "optimize": "textvae.evaluation.search.optimize",
    "VAE": "textvae.vae.vae",
    "Batch": "textvae.vae.batch",
    "Posterior": "textvae.vae.contracts",
    "DiagGaussian": "textvae.vae.posteriors",
    "VonMisesFisher": "textvae.vae.von_mises_fisher",
    "GaussianHead": "textvae.vae.heads",
    "BatchNormHead": "textvae.vae.heads",
    "DUHead": "textvae.vae.heads",
    "ScaleHead": "textvae.vae.heads",
    "VonMisesFisherHead": "textvae.vae.heads",
    "kl": "textvae.vae.posteriors",
    "Purpose": "textvae.vae.noise",
    "RowNoise": "textvae.vae.noise",
    "Prior": "textvae.vae.contracts",
    "StandardNormal": "textvae.vae.priors",
    "MixturePrior": "textvae.vae.priors",
    "VampPrior": "textvae.vae.priors",
    "UniformSphere": "textvae.vae.von_mises_fisher",
    "MixtureSampler": "textvae.vae.samplers",
    "Terms": "textvae.vae.contracts",
    "elbo": "textvae.vae.objectives",
    "iwae": "textvae.vae.objectives",
    "mmd": "textvae.vae.objectives",
    "density_gap": "textvae.vae.objectives",
    "WithMMD": "textvae.vae.objectives",
    "WithBagOfWords": "textvae.vae.objectives",
    "WithDensityGap": "textvae.vae.objectives",
    "WithMinimumKL": "textvae.vae.objectives",
    "free_bits": "textvae.vae.objectives",
    "kl_weight": "textvae.vae.objectives",
    "importance_bound": "textvae.vae.estimators",
    "mutual_information": "textvae.vae.estimators",
    "active_units": "textvae.vae.estimators",
    "infer": "textvae.vae.inference",
    "Inference": "textvae.config.inference",
    "SkipLSTMDecoder": "textvae.text.nn.decoder:LSTMDecoder",
    "ConditionalDecoder": "textvae.vae.condition_embeddings",
    "make_embedding": "textvae.vae.condition_embeddings",
    "check_stepper": "textvae.text.decode.consistency",
    "LSTMEncoder": "textvae.text.nn.encoder",
    "WordTokenizer": "textvae.text.tokenizers",
    "SentencePieceTokenizer": "textvae.text.tokenizers",
    "CharTokenizer": "textvae.text.tokenizers",
    "SmilesTokenizer": "textvae.text.tokenizers",
    "PixelCNN": "textvae.images.pixelcnn",
    "UserError": "textvae.errors",
    "Interrupted": "textvae.training.interrupt",
}

# ``map`` is left out: ``from textvae import *`` must not replace the built-in function.
__all__ = [
    "VAE",
    "Batch",
    "BatchNormHead",
    "Bounds",
    "Card",
    "CharTokenizer",
    "ConditionalDecoder",
    "Config",
    "DUHead",
    "DiagGaussian",
    "Diagnosis",
    "Explanation",
    "GaussianHead",
    "ImageVAE",
    "Inference",
    "Interrupted",
    "LSTMEncoder",
    "MixturePrior",
    "MixtureSampler",
    "Opening",
    "PixelCNN",
    "Posterior",
    "Prior",
    "Purpose",
    "RowNoise",
    "ScaleHead",
    "SentencePieceTokenizer",
    "SkipLSTMDecoder",
    "SmilesTokenizer",
    "StandardNormal",
    "Terms",
    "TextVAE",
    "UniformSphere",
    "UserError",
    "VampPrior",
    "VonMisesFisher",
    "VonMisesFisherHead",
    "WithBagOfWords",
    "WithDensityGap",
    "WithMMD",
    "WithMinimumKL",
    "WordTokenizer",
    "__version__",
    "active_units",
    "attribute_vector",
    "bounds",
    "bounds_run",
    "check_stepper",
    "compare",
    "density_gap",
    "detect",
    "diagnose",
    "diagnose_run",
    "elbo",
    "evaluate",
    "evaluate_run",
    "explain",
    "explain_run",
    "fit_mixture",
    "fit_sampler",
    "free_bits",
    "importance_bound",
    "infer",
    "iwae",
    "kl",
    "kl_weight",
    "load",
    "make_embedding",
    "mmd",
    "mutual_information",
    "neighbors",
    "optimize",
    "probe",
    "report",
    "reproduce",
    "results",
    "score",
    "score_file",
    "sweep",
    "train",
    "traverse",
]


def __getattr__(name: str) -> object:
    if name not in _SOURCES:
        raise AttributeError(f"module 'textvae' has no attribute {name!r}")
    module, _, attribute = _SOURCES[name].partition(":")
    value = getattr(import_module(module), attribute or name)
    globals()[name] = value  # the next access finds it directly
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_SOURCES, *__all__})
