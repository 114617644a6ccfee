"""The table of metrics: what every metric on a card or of an example means and how it is shown.

Everything that shows a metric reads this table: the card as text, the table of ``textvae compare``,
the model card, TensorBoard and the documentation. A card holds only the metrics that are meaningful
for its model and data; a missing metric is absent or ``None``.
"""

from __future__ import annotations

from typing import Any

from textvae.evaluation.metrics.metric import Metric
from textvae.runs.markdown import markdown_table

_NATS = "nats per example"
_WORD = "per word, counting the end of the sentence as a word"
_FRACTION = "fraction"


def _likelihood(key: str, header: str, unit: str, help: str, **options: Any) -> Metric:
    return Metric(key, header, unit, help, "likelihood", **{"better": "lower", **options})


def _latent(key: str, header: str, unit: str, help: str, **options: Any) -> Metric:
    return Metric(key, header, unit, help, "latent", needs_latent=True, **options)


def _text(key: str, header: str, help: str, **options: Any) -> Metric:
    return Metric(key, header, _FRACTION, help, "text", digits=3, **options)


def _probe(key: str, header: str, help: str, **options: Any) -> Metric:
    return Metric(
        key, header, "of the examples", help, "probe", needs_latent=True, scale=100, **options
    )


def _setup(
    key: str, header: str, help: str, unit: str = "", digits: int = 0, **options: Any
) -> Metric:
    return Metric(key, header, unit, help, "setup", digits, **options)


# In the order of the columns of ``textvae compare``.
METRICS: tuple[Metric, ...] = (
    _setup(
        "latent_dim",
        "z",
        "Dimensions of the latent variable; 0 for a model without one.",
        unit="dimensions",
        column="always",
        needs_latent=True,
    ),
    _likelihood(
        "ppl_elbo",
        "PPL (ELBO)",
        _WORD,
        "Perplexity from the ELBO: an upper bound on the true perplexity.",
        column="if present",
    ),
    _likelihood(
        "ppl_iw",
        "PPL (IW)",
        _WORD,
        "Perplexity from the importance-weighted bound: tighter than PPL (ELBO).",
        column="if present",
    ),
    _likelihood(
        "ppl_token_elbo",
        "token PPL (ELBO)",
        "per predicted token",
        "PPL (ELBO) per token: not comparable between tokenizers.",
    ),
    _likelihood(
        "ppl_token_iw",
        "token PPL (IW)",
        "per predicted token",
        "PPL (IW) per token: not comparable between tokenizers.",
    ),
    _likelihood(
        "bits_per_byte_elbo",
        "bits/byte (ELBO)",
        "bits per UTF-8 byte",
        "The ELBO in bits per byte: comparable between tokenizers.",
        digits=3,
    ),
    _likelihood(
        "bits_per_byte_iw",
        "bits/byte (IW)",
        "bits per UTF-8 byte",
        "The importance-weighted bound in bits per byte: comparable between tokenizers.",
        digits=3,
        column="if present",
    ),
    _likelihood(
        "bits_per_dim_elbo",
        "bits/dim (ELBO)",
        "bits per dimension",
        "The ELBO in bits per dimension: per pixel of an image.",
        digits=4,
    ),
    _likelihood(
        "bits_per_dim_iw",
        "bits/dim (IW)",
        "bits per dimension",
        "The importance-weighted bound in bits per dimension: per pixel of an image.",
        digits=4,
        column="if present",
    ),
    _likelihood(
        "rec",
        "rec",
        _NATS,
        "Reconstruction term E_q[log p(x|z)]: how well z and the decoder predict the example.",
        better="higher",
        column="always",
    ),
    _likelihood(
        "elbo",
        "ELBO",
        _NATS,
        "Evidence lower bound, rec - KL: a lower bound on log p(x).",
        better="higher",
        column="always",
        encoder="encoder_elbo",
    ),
    _likelihood(
        "iw",
        "IW",
        _NATS,
        "Importance-weighted bound with K samples (Burda et al. 2016): a tighter lower bound "
        "on log p(x).",
        better="higher",
        column="always",
    ),
    _likelihood(
        "effective_samples",
        "effective K",
        "of K samples",
        "Effective sample size of the importance weights, mean over examples (Kong 1992): if it is "
        "small, the bound is loose and rises with K.",
        digits=1,
        better="neither",
        needs_latent=True,
    ),
    _likelihood(
        "iw_gain",
        "IW gain",
        _NATS,
        "IW minus that of a baseline on the same examples (``textvae compare --baseline``).",
        better="higher",
        column="if present",
    ),
    _latent(
        "kl",
        "KL",
        _NATS,
        "KL(q(z|x) || p(z)): how much the posterior says about an example. Near 0 after "
        "posterior collapse.",
        column="always",
        encoder="encoder_kl",
    ),
    _latent(
        "mi",
        "MI",
        "nats",
        "Mutual information of x and z under q, estimated over the whole split.",
        better="higher",
        column="always",
        error="mi_se",
        encoder="encoder_mi",
    ),
    _latent(
        "mi_upper",
        "MI (upper bound)",
        "nats",
        "An upper bound on the information about all possible examples, for which MI is a lower "
        "bound (both in expectation): MI with every example left out of its own q(z) (Poole et al. "
        "2019), or the KL if that is lower.",
    ),
    _latent(
        "au",
        "AU",
        "dimensions",
        "Active units: latent dimensions whose posterior mean varies over the split.",
        digits=0,
        better="higher",
        column="always",
        encoder="encoder_au",
    ),
    _latent(
        "gap",
        "gap",
        _NATS,
        "What refinement adds to the ELBO: the amortization gap that it closes "
        "(Cremer et al. 2018).",
        column="if present",
    ),
    _latent(
        "regret",
        "regret",
        _NATS,
        "Likelihood regret of an example (Xiao et al. 2020): how much its ELBO rises when its "
        "posterior is refined by gradient steps from the output of the encoder.",
    ),
    _latent(
        "shuffle_gap",
        "shuffle gap",
        _NATS,
        "How much log p(x|z) drops when z comes from another example. Near 0 if the decoder "
        "ignores z.",
        better="higher",
        column="if present",
    ),
    Metric(
        "condition_gap",
        "condition gap",
        _NATS,
        "How much log p(x|z,y) drops when the label or number y comes from another example. Near 0 "
        "if the decoder ignores y.",
        "latent",
        better="higher",
        column="if present",
    ),
    _latent(
        "marginal_kl",
        "KL(q(z) || p)",
        "nats",
        "KL from the aggregate posterior to the prior, KL - MI: how far z sampled from the "
        "prior is from what the decoder saw in training. Overestimated by at most MI (upper "
        "bound) - MI.",
        better="lower",
    ),
    _latent(
        "hole_share",
        "holes (prior)",
        _FRACTION,
        "Share of draws from the prior that lie outside the region with 99% of the mass of the "
        "aggregate posterior q(z): 0.01 if the two are equal, less if q(z) is wider than the "
        "prior.",
        digits=3,
        column="if present",
    ),
    _latent(
        "hole_share_aggregate",
        "holes (aggregate)",
        _FRACTION,
        "The same for draws from the sampler fitted to the aggregate posterior, if there is one.",
        digits=3,
        column="if present",
    ),
    _latent(
        "cu",
        "CU",
        "dimensions",
        "Dimensions whose aggregate posterior is consistent with the prior, "
        "KL(p(z_d) || q(z_d)) < 0.03 nats (Zhang et al. 2022).",
        digits=0,
        better="higher",
    ),
    _latent(
        "au_02",
        "AU at 0.02",
        "dimensions",
        "Active units with the stricter threshold 0.02.",
        digits=0,
        better="higher",
    ),
    _probe(
        "accuracy",
        "accuracy %",
        "Accuracy of a two-layer classifier trained on posterior means.",
        better="higher",
        column="if present",
        error="accuracy_se",
    ),
    _probe(
        "linear_accuracy",
        "linear accuracy %",
        "Accuracy of logistic regression on posterior means.",
        better="higher",
        error="linear_accuracy_se",
    ),
    _probe(
        "majority_accuracy",
        "majority accuracy %",
        "Accuracy of always predicting the most frequent training label: the baseline for "
        "the two classifiers.",
    ),
    Metric(
        "r2",
        "R²",
        "at most 1",
        "Share of the variance of a number that ridge regression on posterior means explains.",
        "probe",
        digits=3,
        better="higher",
        needs_latent=True,
    ),
    Metric(
        "mae",
        "MAE",
        "in units of the number",
        "Mean absolute error of that regression.",
        "probe",
        digits=4,
        better="lower",
        needs_latent=True,
    ),
    Metric(
        "median_mae",
        "MAE of the median",
        "in units of the number",
        "Mean absolute error of always predicting the median of the training split: the baseline.",
        "probe",
        digits=4,
        needs_latent=True,
    ),
    _text(
        "bleu",
        "BLEU",
        "Corpus BLEU-4 of greedy reconstructions against their sources.",
        better="higher",
        column="if present",
    ),
    _text(
        "exact",
        "exact",
        "Share of greedy reconstructions that equal their source.",
        better="higher",
    ),
    _text(
        "self_bleu",
        "self-BLEU",
        "Mean BLEU-4 of each sample against all others: lower means more varied samples.",
        better="lower",
        column="if present",
    ),
    _text(
        "distinct_1",
        "distinct-1",
        "Distinct words divided by all words of the samples.",
        better="higher",
    ),
    _text(
        "distinct_2",
        "distinct-2",
        "Distinct bigrams divided by all bigrams of the samples.",
        better="higher",
    ),
    _setup("count", "examples", "Examples evaluated."),
    _setup("units", "words", "Words and ends of sentence: what PPL is counted in."),
    _setup("tokens", "symbols", "Symbols that the model predicts: tokens, or pixels."),
    _setup("bytes", "bytes", "Bytes of text, in UTF-8."),
    _setup("samples", "K", "Samples of the importance-weighted bound."),
    _setup("refine_steps", "refinement steps", "Gradient steps that refine each posterior."),
    _setup(
        "mi_max",
        "largest MI",
        "The largest value that the MI estimate can take: the log of the number of examples.",
        "nats",
        digits=2,
    ),
    _setup(
        "au_threshold",
        "AU threshold",
        "A dimension is active if the variance of its posterior mean is at least this.",
        digits=2,
    ),
    _setup("bleu_texts", "reconstructed", "Sentences reconstructed for BLEU and exact."),
    _setup("sampled", "sampled", "Sentences sampled for self-BLEU and distinct-n."),
    _setup("classes", "classes", "Labels that the classifiers tell apart."),
    _setup("probed", "probed", "Labeled examples that the probes are scored on."),
    _setup("trained_on", "trained on", "Labeled examples that the probes are trained on."),
    _setup("seconds", "seconds", "Wall-clock time of the evaluation.", digits=1),
)
BY_KEY: dict[str, Metric] = {metric.key: metric for metric in METRICS}
# Standard errors and the encoder's metrics before refinement are shown next to their metric.
COMPANIONS: frozenset[str] = frozenset(
    key for metric in METRICS for key in (metric.error, metric.encoder) if key is not None
)
RESULTS: frozenset[str] = frozenset(metric.key for metric in METRICS if metric.section != "setup")
NUMBERS: frozenset[str] = COMPANIONS | BY_KEY.keys()  # a number or null on every card
# What a card records besides figures: names, settings, a warning, and one value per dimension.
NOT_METRICS: frozenset[str] = frozenset(
    {
        *("model", "split", "precision", "generations", "seed", "corpus_hash", "weights", "commit"),
        *("own_metrics", "own_metric_code", "stale", "summary"),
        *("collapse", "kl_estimated", "condition", "given", "target"),
        *("kl_per_dim", "encoder_kl_per_dim", "mean_variances", "elbo_by_step"),
        *(
            "r2_interval",
            "mae_interval",
            "iw_gain_interval",
            "baseline",
            "coefficients",
            "intercept",
        ),
    }
)


def metrics_table() -> str:
    """Return all metrics as a Markdown table, for the documentation."""
    rows = [
        (m.header, f"`{m.key}`", m.unit, "" if m.better == "neither" else m.better, m.help)
        for m in METRICS
    ]
    return markdown_table([("name", "key", "unit", "better", "meaning"), *rows]) + "\n"
