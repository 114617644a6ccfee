"""The interface of a VAE for any kind of data: encode, decode, sample, reconstruct, interpolate.

The subclass for a kind of data defines how examples become batches and how z becomes examples;
everything else is built from these two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from textvae.config.arguments import check_choice, check_integers
from textvae.config.inference import Inference, with_steps
from textvae.errors import OptionError, UserError
from textvae.vae.batch import Batch, Split
from textvae.vae.conditioning import codes_of
from textvae.vae.conditions import Given
from textvae.vae.contracts import Posterior
from textvae.vae.examples import ExampleKind
from textvae.vae.heads import head_maker
from textvae.vae.inference import infer_all
from textvae.vae.interpolation import between
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.priors import MixturePrior, VampPrior, standard_prior
from textvae.vae.von_mises_fisher import UniformSphere

Source = Literal["prior", "aggregate"]  # what z is drawn from


class Model(ExampleKind):
    """A VAE that reads and makes examples of one kind of data."""

    DECODE_OPTIONS: ClassVar[tuple[str, ...]] = ()  # of ``decode``, besides seed and batch_size

    def make_prior(self, config: dict[str, Any]) -> nn.Module:
        """Create the prior p(z) from the model's arguments; override it for a different prior."""
        if config["latent_dim"] and config.get("posterior") == "vmf":
            return UniformSphere(config["latent_dim"])
        match config["prior"]:
            case "standard":
                return standard_prior(config["latent_dim"])
            case "mixture":
                return MixturePrior(config["latent_dim"], config["prior_components"])
            case "vamp":
                return self.make_vamp_prior(config)
        raise ValueError(f"unknown prior {config['prior']!r}")

    def make_head(self, config: dict[str, Any], features: int) -> nn.Module:
        """Create the encoder's last layer, from features (B, H) to a posterior.

        Override it for a posterior of another family.

        Args:
            config: The model's arguments.
            features: H.
        """
        return head_maker(config)(features)

    def make_vamp_prior(self, config: dict[str, Any]) -> VampPrior:
        """Create a prior with pseudo-inputs that the encoder reads."""
        raise NotImplementedError

    def encode(
        self,
        examples: Any,
        *,
        condition: Given | None = None,
        refine_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
        first_row: int = 0,
    ) -> Any:
        """Infer q(z|x) of every example, in the order given, on the CPU.

        Args:
            examples: N examples of the model's kind of data.
            condition: For a model that is conditioned on labels: a label for all examples, by name
                or number, or one for each.
            refine_steps: Gradient steps on the ELBO that refine q(z|x); as in training by default,
                0 for the encoder only.
            seed: Seed of the noise in the steps; example i gets the noise of (seed, i).
            batch_size: Examples per batch; does not change the results.
            first_row: Number of the first example, to encode a large dataset in parts.

        Returns:
            The posterior of all examples: for a Gaussian, ``mean`` and ``logvar`` (N, Z).

        Raises:
            UserError: The model has no latent variable, no encoder for 0 steps, or cannot read
                the examples.
        """
        self.check_latent()
        check_integers(1, batch_size=batch_size)
        check_integers(0, first_row=first_row)
        examples = self.listed(examples)
        batches = self.conditioned(self.batches(examples, batch_size), condition, len(examples))
        if first_row:
            batches = (replace(b, index=b.index + first_row * (b.index >= 0)) for b in batches)
        return infer_all(self, batches, self.inference_with(refine_steps), seed)

    def conditioned(
        self, batches: Iterable[Batch], condition: Given | None, count: int
    ) -> Iterable[Batch]:
        """Return batches of ``count`` examples with what the model is conditioned on.

        Raises:
            UserError: The condition is missing, or does not fit the model.
        """
        codes = codes_of(self.condition, condition, count)
        if codes is None:
            return batches
        known = codes if count else codes.new_zeros(1)  # of the placeholder for no examples
        return (replace(batch, condition=known[batch.index]) for batch in batches)

    def listed(self, examples: Any) -> Any:
        """Return the examples as a sequence: those of an iterator, a single one in a list."""
        return list(examples) if isinstance(examples, Iterator) else examples

    def counted_batches(self, examples: Any, batch_size: int) -> Iterable[Batch]:
        """Like ``batches``, with what metrics are counted in, such as words and bytes."""
        return self.batches(examples, batch_size)

    def batches(self, examples: Any, batch_size: int) -> Iterable[Batch]:
        """Split the examples into batches, in any order; ``Batch.index`` is their position.

        If there are no examples, use a placeholder: ``encode`` needs one posterior to know what an
        empty one looks like.
        """
        raise NotImplementedError

    def conditions_in(self, split: Split, rows: Iterable[int]) -> dict[str, Any]:
        """Return ``condition`` for the examples of a split; empty for a model without one."""
        if self.condition is None or split.conditions is None:
            return {}
        return {"condition": self.condition.values([split.conditions[row] for row in rows])}

    def draw_z(self, count: int, seed: int, source: Source = "prior", first_row: int = 0) -> Tensor:
        """Draw z to decode, (N, Z); row i depends only on the seed and on i.

        Args:
            count: N.
            seed: Seed of the draws.
            source: The ``prior``, or the sampler fitted to the ``aggregate`` posterior.
            first_row: Number of the first row.

        Raises:
            UserError: There is no such source.
        """
        check_integers(0, count=count, first_row=first_row)
        sources = {"prior": self.prior, "aggregate": self.sampler}
        check_choice(tuple(sources), source=source)
        if sources[source] is None:
            raise UserError(
                "source='aggregate': this model has no fitted sampler yet; create it with "
                "textvae.fit_sampler or textvae sample RUN --from aggregate"
            )
        rows = range(first_row, first_row + count)
        return sources[source].sample(count, RowNoise(seed, Purpose.LATENT, rows))

    def draw_conditions(self, count: int, seed: int, first_row: int = 0) -> list[Any] | None:
        """Draw labels or numbers as often as they occur in training; None without a condition.

        ``decode`` uses the same ones if it is not given a condition.

        Args:
            count: How many.
            seed: Seed of the draws.
            first_row: Number of the first one.
        """
        if self.condition is None:
            return None
        noise = RowNoise(seed, Purpose.CONDITION, range(first_row, first_row + count))
        codes = codes_of(self.condition, None, count, noise)
        return None if codes is None else self.condition.values(codes.tolist())

    def decode(self, z: Tensor, *, batch_size: int = 64, seed: int = 0, **options: Any) -> Any:
        """Generate an example for every z (N, Z)."""
        raise NotImplementedError

    def decode_path(self, z: Tensor, **options: Any) -> Any:
        """Decode the points of a path through the latent space; options as in ``decode``.

        Override it if examples drawn at random can share their random numbers, so that they differ
        only because z does.
        """
        return self.decode(z, **options)

    def sample(self, n: int = 10, **options: Any) -> Any:
        """Generate ``n`` examples: z ~ ``source``, then x ~ p(x|z). Options as in ``decode``."""
        raise NotImplementedError

    def simulate(
        self, count: int, *, seed: int = 0, batch_size: int = 32
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Generate examples together with the z that they came from: z ~ p(z), x ~ p(x|z).

        Args:
            count: Number of examples; texts that have not ended at the maximum length are left out.
            seed: Seed of z and x.
            batch_size: Examples per batch; does not change them.

        Yields:
            B examples, and their z (B, Z): draws of the exact posteriors p(z|x).
        """
        raise NotImplementedError

    def walk(self, side: int = 15, **options: Any) -> Any:
        """Generate examples on a ``side`` x ``side`` grid in a two-dimensional latent space.

        Raises:
            UserError: The model is of a kind of data that is not shown in a grid.
        """
        raise UserError("walk applies only to image models: use traverse")

    def inference_with(self, refine_steps: int | None) -> Inference:
        """Return the model's inference options with a different number of refinement steps.

        Raises:
            UserError: There are too few steps, or there is no latent variable to refine.
        """
        if refine_steps is not None:
            check_integers(0, refine_steps=refine_steps)
            refine_steps = int(refine_steps)  # a config does not accept NumPy's integers
        if refine_steps and not self.latent_dim:
            raise OptionError("this model has no latent variable", refine_steps=refine_steps)
        try:
            return with_steps(self.inference, refine_steps, self.has_encoder)
        except ValueError as error:
            raise OptionError(f"{error}", refine_steps=refine_steps) from error

    def check_latent(self) -> None:
        """Raise a ``UserError`` if the model has no latent variable."""
        if not self.latent_dim:
            raise UserError(
                "this model has no latent variable (latent_dim 0): it can sample, but not encode, "
                "reconstruct, or interpolate"
            )

    def check_z(self, z: Tensor) -> Tensor:
        """Move z (N, Z) to the model's device.

        Raises:
            UserError: It has the wrong shape, or values that are not finite.
        """
        if isinstance(z, Posterior):
            raise TypeError("z must be a tensor: pass the mean of the posterior, as in q.mean")
        dtype = next(self.parameters()).dtype
        try:
            z = torch.as_tensor(z, dtype=dtype, device=self.device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"z must be a tensor (N, {self.latent_dim}), not {z!r:.50}") from None
        if z.dim() != 2 or z.size(1) != self.latent_dim:
            raise UserError(
                f"z must be (N, {self.latent_dim}) for this model, not {tuple(z.shape)}"
            )
        if not z.isfinite().all():
            raise UserError("z has values that are not finite")
        return z

    def reconstruct(
        self,
        examples: Any,
        *,
        use: Literal["mean", "sample"] = "mean",
        condition: Given | None = None,
        decode_condition: Given | None = None,
        refine_steps: int | None = None,
        seed: int = 0,
        batch_size: int = 64,
        **options: Any,
    ) -> Any:
        """Encode each example and decode it again, perhaps under another condition.

        Args:
            examples: N examples of the model's kind of data.
            use: Decode the center of q(z|x) (``mean``; of a von Mises-Fisher distribution, its mean
                direction), or a ``sample`` from it.
            condition: As in ``encode``; used to encode and to decode.
            decode_condition: Used to decode instead of ``condition``: for a model of reviews that
                is conditioned on their rating, the same review with another rating.
            refine_steps: As in ``encode``.
            seed: Seed of all noise.
            batch_size: Examples per batch; does not change the results.
            options: As in ``decode``.

        Raises:
            UserError: As in ``encode`` and ``decode``.
        """
        check_choice(("mean", "sample"), use=use)
        q = self.encode(
            examples,
            condition=condition,
            refine_steps=refine_steps,
            seed=seed,
            batch_size=batch_size,
        )
        if (decoded := condition if decode_condition is None else decode_condition) is not None:
            options["condition"] = decoded
        z = q.center()
        if use == "sample":
            z = q.rsample(1, RowNoise(seed, Purpose.LATENT, range(len(z))))[0]
        return self.decode(z, batch_size=batch_size, seed=seed, **options)

    def interpolate(
        self,
        a: Any,
        b: Any,
        steps: int = 7,
        kind: Literal["linear", "spherical"] | None = None,
        *,
        condition: str | float | None = None,
        refine_steps: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Any:
        """Decode points between ``a`` and ``b``, on a line or an arc between their means.

        Args:
            a: The first example.
            b: The last example.
            steps: Number of examples, including both ends.
            kind: ``linear`` or ``spherical``; by default spherical if z lies on a sphere (a von
                Mises-Fisher posterior), else linear.
            condition: As in ``encode``: one for the whole path.
            refine_steps: As in ``encode``.
            seed: Seed of all noise.
            options: As in ``decode``.

        Raises:
            UserError: There are fewer than 2 steps, or as in ``encode`` and ``decode``.
        """
        check_integers(2, steps=steps)  # both ends
        if not isinstance(condition, str | Real | None):
            raise OptionError("give one for the whole path", condition=condition)
        q = self.encode([a, b], condition=condition, refine_steps=refine_steps, seed=seed)
        start, end = q.center()
        if condition is not None:
            options["condition"] = condition
        return self.decode_path(self.path(start, end, steps, kind), seed=seed, **options)

    @property
    def on_sphere(self) -> bool:
        """Whether z lies on the unit sphere."""
        return isinstance(self.prior, UniformSphere)

    def path(
        self,
        start: Tensor,
        end: Tensor,
        steps: int,
        kind: Literal["linear", "spherical"] | None = None,
    ) -> Tensor:
        """Points from ``start`` to ``end``, both (Z,): (S, Z). ``kind`` as in ``interpolate``."""
        kind = kind or ("spherical" if self.on_sphere else "linear")
        return between(start, end, steps, kind)
