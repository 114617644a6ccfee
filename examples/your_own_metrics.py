"""Metrics of your own: functions of a model and of the batches that it is evaluated on.

    textvae evaluate RUN --own-metric examples/your_own_metrics.py:kl_parts

``kl_parts`` splits the KL into three parts (Hoffman & Johnson 2016; Chen et al. 2018, equation 2),
with q(z) = 1/N sum_n q(z|x_n) over all N examples and q(z_d) its marginals:

    E_x KL(q(z|x) || p(z)) =   E log q(z|x) / q(z)             index_code_mi
                             + E log q(z) / prod_d q(z_d)      total_correlation
                             + E log prod_d q(z_d) / p(z)      dimension_kl

A large total correlation means that the dimensions of z depend on one another.
"""

import math

import torch

import textvae

ROWS = 2**22  # densities computed at once, which limits the memory


def kl_parts(model, batches):
    """Return the three parts of the KL in nats per example, estimated from one draw of z each."""
    if not model.latent_dim:
        return None  # no latent variable: a dash in the tables
    posteriors = [model.posterior(batch) for batch in batches]
    if not isinstance(posteriors[0], textvae.DiagGaussian):
        return None  # other posteriors do not factor into dimensions
    mean = torch.cat([q.mean for q in posteriors]).double()  # (N, Z)
    scale = torch.cat([q.logvar for q in posteriors]).double().mul(0.5).exp()
    q = torch.distributions.Normal(mean, scale)
    z = q.sample()
    log_cond = q.log_prob(z).sum(1)  # (N,)
    log_joint, log_product = torch.empty_like(log_cond), torch.empty_like(log_cond)
    for rows in torch.arange(len(z)).split(max(1, ROWS // mean.numel())):
        pairs = q.log_prob(z[rows, None])  # (R, N, Z)
        log_joint[rows] = pairs.sum(2).logsumexp(1) - math.log(len(z))
        log_product[rows] = (pairs.logsumexp(1) - math.log(len(z))).sum(1)
    log_prior = model.prior.log_prob(z.float()).double()
    return {
        "index_code_mi": float((log_cond - log_joint).mean()),
        "total_correlation": float((log_joint - log_product).mean()),
        "dimension_kl": float((log_product - log_prior).mean()),
    }


def length_kept(model, batches):
    """Return the share of the reconstructions that have as many words as their source.

    The name that ends in ``_se`` is the standard error, which is shown with it.
    """
    if not model.latent_dim:
        return None
    kept = []
    for batch in batches:
        sources = [model.tokenizer.decode(ids) for ids in batch.x.tolist()]
        texts = model.reconstruct(sources)
        kept += [len(a.split()) == len(b.split()) for a, b in zip(sources, texts, strict=True)]
    share = sum(kept) / len(kept)
    return {"length_kept": share, "length_kept_se": math.sqrt(share * (1 - share) / len(kept))}
