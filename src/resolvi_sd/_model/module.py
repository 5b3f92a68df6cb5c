"""Parameters of the model and its guide, and the components from which both are built."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.transforms import ExpTransform
from torch.nn import functional as F

from resolvi_sd._compiled import is_compiled
from resolvi_sd._model.completion import complete
from resolvi_sd._model.config import ModelConfig
from resolvi_sd._model.delaporte import Delaporte, delaporte_log_prob, expected_signal, poisson_log_prob
from resolvi_sd._model.gaussian_mixture import GaussianMixture
from resolvi_sd._model.logistic_normal import MaskedLogisticNormal
from resolvi_sd._model.masked_dirichlet import MaskedDirichlet, masked_softmax, point_log_density
from resolvi_sd._model.neighborhood import LEAST_CONCENTRATION, LEAST_LOG_KERNEL, neighbor_sum, weights_and_density
from resolvi_sd._model.networks import N_SETTING, Classifier, Decoder, DensityDecoder, LatentEncoder, ShareEncoder
from resolvi_sd._model.share_input import ShareInput, share_input
from resolvi_sd._tiles import Minibatch, SparseRows

__all__ = ["PER_CELL", "DataSummary", "Rates", "ResolviModule"]

# The parameter that each cell has its own row of.
PER_CELL = "neighbor_logits.weight"

# The level of the prior mean of the shares is common to a batch, and has to keep pace with the shares of its cells.
_SHARE_PRIOR_SPEED = 10.0
_SHARE_SCALE = 0.4
# Largest difference that the setting of a cell makes to the log-ratios of the prior mean of its shares.
_LARGEST_SHIFT = 4.0
# Initial logarithm of the inverse overdispersion. Near Poisson, every molecule counts, so that kinds of cells are
# separated before their differences can be mistaken for noise.
_LOG_CONCENTRATION = 4.0
# Expression, relative to the mean over genes, below which the sparse prior of profiles makes no difference.
_LEAST_EXPRESSION = 0.05
_TINY = 1e-30


@dataclass(frozen=True)
class DataSummary:
    """Properties of the data that the model needs to know before it sees a cell.

    Attributes
    ----------
    n_cells, n_train, n_genes, n_batches, n_neighbors
        Sizes; `n_train` is the number of cells that have molecules.
    neighbor_distance
        Median distance between neighbors, in the units of the coordinates: the initial length scale of leakage.
    gene_profile
        Share of each gene in all molecules, batches × genes: the initial background profile.
    depth
        Median number of molecules of a cell.
    n_labels
        Number of labels of the semi-supervised model; 0 without labels.
    n_covariates
        Number of categories of each further covariate.
    median_size
        Median size factor, in its units; 0 if the size of a cell is its number of observed molecules.
    unmeasured
        Columns of the genes of a reference that a query lacks.
    """

    n_cells: int
    n_train: int
    n_genes: int
    n_batches: int
    n_neighbors: int
    neighbor_distance: float
    gene_profile: Tensor
    depth: float
    n_labels: int = 0
    n_covariates: tuple[int, ...] = ()
    median_size: float = 0.0
    unmeasured: tuple[int, ...] = ()

    @property
    def n_categories(self) -> tuple[int, ...]:
        """Numbers of categories of the batch and of each further covariate."""
        return (self.n_batches, *self.n_covariates)


@dataclass(frozen=True)
class Rates:
    """Expected molecules by source, each of shape cells × genes, and of all genes, `amount`, cells × 3."""

    own: Tensor
    diffused: Tensor
    background: Tensor
    amount: Tensor

    @classmethod
    def of(cls, amount: Tensor, own: Tensor, around: Tensor, background: Tensor) -> Rates:
        """Return the rates of cells that have these molecules of each source, cells × 3, from three profiles."""
        return cls(amount[:, 0:1] * own, amount[:, 1:2] * around, amount[:, 2:3] * background, amount)

    @property
    def signal(self) -> Tensor:
        """Mean of the negative binomial: all molecules that are not background."""
        return self.own + self.diffused


class ResolviModule(nn.Module):
    """ResolVI: own expression, diffusion from the neighbors, and background (Ergen & Yosef 2025).

    The methods are the components: priors, point estimates and rates. `programs.py` builds a Pyro model and guide from
    them, and `elbo.py` the training objective. All parameters belong to this module, so nothing enters Pyro's global
    store, and any number of models can coexist.
    """

    def __init__(self, config: ModelConfig, data: DataSummary) -> None:
        super().__init__()
        self.config, self.data = config, data
        # For parameters that have rows for categories: the number of rows that training keeps fixed.
        self.known_rows: dict[str, int] = {}
        # Digest of the parameters of the model from which this one was extended.
        self.origin = ""
        genes, latent = data.n_genes, config.n_latent
        self.latent_encoder = LatentEncoder(
            genes,
            latent,
            config.n_hidden_encoder,
            config.n_layers,
            # Otherwise covariates are left to the decoder, so that the latent space is free of them.
            data.n_categories if config.encode_covariates else (),
            config.dropout_rate,
        )
        self.share_encoder = ShareEncoder(genes, config.n_hidden_share, config.n_layers, data.n_batches)
        self.decoder = Decoder(genes, latent, config.n_hidden, config.n_layers, data.n_categories)
        if data.median_size:
            self.density_decoder = DensityDecoder(latent, config.n_hidden, data.n_categories, data.depth)

        # With labels, there is one component for each of them.
        components = data.n_labels or config.n_components
        self.component_logits = nn.Parameter(torch.zeros(components))
        self.component_means = nn.Parameter(torch.randn(components, latent))
        self.component_log_scales = nn.Parameter(torch.full((components, latent), -1.0))
        if data.n_labels:
            self.classifier = Classifier(latent, config.n_hidden_encoder, data.n_labels)
        self.background_logits = nn.Parameter(data.gene_profile.clamp_min(1e-6).log())
        rows = data.n_batches if config.dispersion == "gene-batch" else 1
        self.log_concentration = nn.Parameter(torch.full((rows, genes), _LOG_CONCENTRATION))
        self.log_range = nn.Parameter(torch.zeros(()))
        # Sparse gradients: the cost of a step depends on its own cells, not on the total number of cells.
        self.neighbor_logits = nn.Embedding(data.n_cells, data.n_neighbors, sparse=True)
        nn.init.zeros_(self.neighbor_logits.weight)
        prior = torch.tensor(config.share_prior)
        self.log_depth = math.log1p(data.depth)
        start = (prior / prior.sum()).log()
        adapts = config.adapt_share_prior
        levels = start.expand(data.n_batches, -1) / _SHARE_PRIOR_SPEED
        self.share_prior_logits = nn.Parameter(levels.clone(), requires_grad=adapts)
        self.share_prior_slopes = nn.Parameter(torch.zeros(N_SETTING, len(prior) - 1), requires_grad=adapts)
        with torch.no_grad():
            self.share_encoder.loc.weight.zero_()
            self.share_encoder.loc.bias.copy_(start[1:] - start[0])
            self.share_encoder.log_scale.weight.zero_()
            self.share_encoder.log_scale.bias.fill_(math.log(_SHARE_SCALE))
            self.decoder.rate.bias.copy_(data.gene_profile.mean(0).clamp_min(1e-6).log())
        self.float()  # regardless of torch's default

    @classmethod
    def blank(cls, config: ModelConfig, data: DataSummary) -> ResolviModule:
        """Return a model with uninitialized parameters, except for the neighbor weights, which are those of the kernel.

        Nothing is drawn at random, because another thread may be training with torch's global generator.
        """
        with torch.device("meta"):
            module = cls(config, data)
        module.to_empty(device="cpu")
        nn.init.zeros_(module.neighbor_logits.weight)
        return module

    def raise_skip_weights(self, weight: float) -> None:
        """Raise the weight of the linear maps to and from the latent to `weight`, at most 1; never lower it."""
        self.latent_encoder.raise_skip_weight(weight)
        self.decoder.raise_skip_weight(weight)

    # Shared between cells

    def concentration(self) -> Tensor:
        """Return the inverse overdispersion r of the negative binomial, 1 or batches × genes."""
        return torch.exp(self.log_concentration.clamp(-7.0, 9.0))

    def concentration_group(self, batch: Tensor) -> Tensor:
        """Return the row of :meth:`concentration` for each cell."""
        return batch if len(self.log_concentration) > 1 else torch.zeros_like(batch)

    def log_likelihood(self, counts: SparseRows, rates: Rates, batch: Tensor) -> Tensor:
        """Return the log-probability of the counts of each row, given its rates and batch."""
        if self.config.likelihood == "poisson":
            return poisson_log_prob(counts, rates.signal, rates.background)
        group = self.concentration_group(batch)
        return delaporte_log_prob(counts, rates.signal, rates.background, self.concentration(), group)

    def expected_signal(self, counts: SparseRows, rates: Rates, batch: Tensor) -> Tensor:
        """Return the expected molecules of every stored count that are not background, given rates and batch."""
        r = None if self.config.likelihood == "poisson" else self.concentration()
        return expected_signal(counts, rates.signal, rates.background, r, self.concentration_group(batch))

    def expected_own(self, counts: SparseRows, rates: Rates, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected own molecules of every stored count, and those that are not background."""
        row, gene = counts.rows(), counts.gene
        signal = self.expected_signal(counts, rates, batch)
        own = signal * rates.own[row, gene] / rates.signal[row, gene].clamp_min(_TINY)
        return torch.minimum(own, signal), signal  # rounding must not create more molecules than there are

    def background_profile(self) -> Tensor:
        """Return the background profile of each batch, batches × genes; rows sum to 1."""
        return torch.softmax(self.background_logits, dim=-1)

    def latent_prior(self, minibatch: Minibatch) -> GaussianMixture:
        """Return the mixture of Gaussians over the latent of the core cells; a label favors its own component."""
        scales = torch.exp(self.component_log_scales) + 1e-4
        logits: Tensor = self.component_logits
        if self.data.n_labels:
            known = F.one_hot(minibatch.label + 1, self.data.n_labels + 1)[:, 1:]
            logits = logits + self.config.label_prior_logit * known
        return GaussianMixture(logits, self.component_means, scales)

    def label_likelihood(self, latent: Tensor) -> dist.Categorical:
        """Return the distribution of the label given the latent."""
        return dist.Categorical(logits=self.classifier(latent), validate_args=False)

    def share_mean(self, batch: Tensor, setting: Tensor | None = None) -> Tensor:
        """Return the prior mean of the shares (own, diffusion, background) of cells, cells × 3.

        The amount of leakage differs tenfold between tissues, and differs between the sections of a study, so that the
        mean is learned for each batch; the weight of the prior is fixed. Within a tissue, the mean depends on the
        `setting` of a cell, see :class:`ShareInput`: what a cell receives does not depend on how many molecules it has
        itself, so that the own share is smaller in cells with few of them. Without `setting`, that is taken as zero.
        """
        logits = _SHARE_PRIOR_SPEED * self.share_prior_logits[batch]
        if setting is not None:
            shift = (setting @ self.share_prior_slopes).clamp(-_LARGEST_SHIFT, _LARGEST_SHIFT)
            logits = logits + F.pad(shift, (1, 0))
        return torch.softmax(logits, dim=-1)

    def background_prior(self) -> dist.Dirichlet:
        """Return the symmetric Dirichlet over the background profile of each batch :meth:`among_measured` genes."""
        weight = self.config.background_prior_weight * torch.ones_like(self.of_measured(self.background_logits))
        return dist.Dirichlet(weight, validate_args=False).to_event(1)

    def dispersion_prior(self) -> dist.Exponential:
        """Return the exponential over the overdispersion 1 / r of each measured gene, which shrinks toward Poisson."""
        ones = torch.ones_like(self.of_measured(self.log_concentration))
        return dist.Exponential(ones, validate_args=False).to_event(2)

    def range_prior(self) -> dist.TransformedDistribution:
        """Return the log-normal over the length scale of leakage, in units of the median neighbor distance."""
        # Not Pyro's LogNormal, which validates its values even if told not to.
        normal = dist.Normal(torch.zeros_like(self.log_range), torch.ones_like(self.log_range), validate_args=False)
        return dist.TransformedDistribution(normal, [ExpTransform()], validate_args=False)

    def leakage_range(self) -> Tensor:
        """Return the point estimate of the length scale of leakage, in units of the median neighbor distance."""
        return torch.exp(self.log_range)

    # Genes that a query lacks

    def is_measured(self) -> Tensor:
        """Return the mask of the genes that were measured: all but those that a query lacks."""
        measured = torch.ones(self.data.n_genes, dtype=torch.bool, device=self.log_range.device)
        measured[list(self.data.unmeasured)] = False
        return measured

    def of_measured(self, values: Tensor) -> Tensor:
        """Return the columns of the measured genes."""
        return values[:, self.is_measured()] if self.data.unmeasured else values

    def among_measured(self, profile: Tensor) -> Tensor:
        """Return the columns of the measured genes of profiles, scaled to sum to 1."""
        if not self.data.unmeasured:
            return profile
        profile = self.of_measured(profile)
        return profile / profile.sum(dim=-1, keepdim=True)

    # Of each cell

    def encode(
        self, features: SparseRows, categories: Tensor, molecules: Tensor, *, dropout: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of the latent posterior of cells, both cells × n_latent.

        `features`, `categories` and `molecules` are those of a minibatch, or of some of its cells. In a query that
        lacks genes, the features are completed first.
        """
        if self.data.unmeasured:
            features = complete(self, features, categories, molecules).features
        mean, spread = self.latent_encoder(features, categories, dropout=dropout)
        return mean, spread

    def encode_all(self, minibatch: Minibatch) -> tuple[Tensor, Tensor]:
        """Return :meth:`encode` of all cells of a minibatch."""
        return self.encode(minibatch.features, minibatch.categories, minibatch.molecules)

    def latent_posterior(self, minibatch: Minibatch) -> dist.Independent:
        """Return the normal over the latent of the core cells."""
        core = minibatch.molecules[: minibatch.n_core]
        mean, spread = self.encode(minibatch.core_features, minibatch.core_categories, core)
        return dist.Independent(dist.Normal(mean, spread, validate_args=False), 1)

    def neighbor_kernel(self, distance: Tensor, length: Tensor) -> Tensor:
        """Return the log of the unnormalized prior weight of each slot, empty or not, core × k: -d^2 / (2 length^2)."""
        relative = distance / (length * self.data.neighbor_distance)
        return (-0.5 * relative.square()).clamp_min(LEAST_LOG_KERNEL)

    def neighbor_prior(self, minibatch: Minibatch, length: Tensor) -> MaskedDirichlet:
        """Return the Dirichlet over the neighbor weights, concentrated on near neighbors."""
        base = masked_softmax(self.neighbor_kernel(minibatch.distance, length), minibatch.mask)
        return MaskedDirichlet(self.config.neighbor_prior_weight * base + LEAST_CONCENTRATION, minibatch.mask)

    def neighbor_weights(self, minibatch: Minibatch, length: Tensor | None = None) -> Tensor:
        """Return the point estimate of the neighbor weights beta, core × k; rows sum to 1 (0 without neighbors).

        `length` is the range of leakage, by default the learned one.
        """
        length = self.leakage_range() if length is None else length
        free = self.neighbor_logits(minibatch.cells[: minibatch.n_core])
        return masked_softmax(self.neighbor_kernel(minibatch.distance, length) + free, minibatch.mask)

    def neighbor_weights_and_density(self, minibatch: Minibatch, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return the :meth:`neighbor_weights`, and the log-ratio of their prior to their guide, core."""
        if is_compiled(minibatch.distance) and is_compiled(self.neighbor_logits.weight):
            return weights_and_density(
                self.neighbor_logits(minibatch.cells[: minibatch.n_core]),
                self.log_range,
                minibatch.distance / self.data.neighbor_distance,
                minibatch.mask,
                self.config.neighbor_prior_weight,
            )
        weights = self.neighbor_weights(minibatch, length)
        prior = self.neighbor_prior(minibatch, length)
        return weights, prior.log_prob(weights) - point_log_density(weights, prior)

    def share_mask(self, minibatch: Minibatch) -> Tensor:
        """Return which sources a cell can have, core × 3: a cell without neighbors cannot have received molecules."""
        reached = minibatch.mask.any(dim=1)
        always = torch.ones_like(reached)
        return torch.stack([always, reached, always], dim=1)

    def shares_prior(self, minibatch: Minibatch, given: ShareInput | None = None) -> MaskedDirichlet:
        """Return the Dirichlet over the shares (own, diffusion, background) of each cell."""
        mean = self.share_mean(minibatch.core_batch, (given or share_input(self, minibatch)).setting)
        return MaskedDirichlet(self.config.share_prior_weight * mean, self.share_mask(minibatch))

    def shares(self, minibatch: Minibatch) -> Tensor:
        """Return the posterior mean of the shares alpha (own, diffusion, background), core × 3; rows sum to 1."""
        return self.share_posterior(minibatch).mean

    def share_posterior(self, minibatch: Minibatch, given: ShareInput | None = None) -> MaskedLogisticNormal:
        """Return the logistic-normal over the shares of the core cells."""
        given = given or share_input(self, minibatch)
        profiles = self.share_encoder.around(given.features)
        if is_compiled(profiles):
            around = neighbor_sum(profiles, minibatch.neighbor, given.weights)
        else:
            around = F.embedding_bag(minibatch.neighbor, profiles, per_sample_weights=given.weights, mode="sum")
        loc, scale = self.share_encoder(given.counts, around, given.setting, minibatch.core_batch)
        return MaskedLogisticNormal(loc, scale, self.share_mask(minibatch))

    def expression(self, latent: Tensor, categories: Tensor) -> Tensor:
        """Return the expression profile rho, cells × genes; rows sum to 1.

        `categories` is cells × (batch and covariates).
        """
        profile: Tensor = self.decoder(latent, categories)
        return profile

    def profile_log_prior(self, profile: Tensor) -> Tensor:
        """Return the log-density of the sparse prior of profiles, up to a constant, one value per cell.

        The prior is a Dirichlet whose concentration is below 1, kept finite for genes below a 20th of the mean
        expression. Genes that a query lacks have no part in it.
        """
        profile = self.among_measured(profile)
        relative = profile.shape[-1] * profile + _LEAST_EXPRESSION
        return -self.config.profile_sparsity * self.data.depth * relative.log().mean(dim=-1)

    def neighbor_expression(self, minibatch: Minibatch, expression: Tensor, weights: Tensor) -> Tensor:
        """Return the sum of the neighbors' profiles, weighted by beta, core × genes.

        `expression` contains all cells of the minibatch. It is detached from the gradient; otherwise, the latents would
        collapse onto each other (Ergen & Yosef 2025).
        """
        return F.embedding_bag(minibatch.neighbor, expression.detach(), per_sample_weights=weights, mode="sum")

    def halo_expression(self, minibatch: Minibatch) -> Tensor:
        """Return the profiles of the halo, halo × genes, at the means of the cells' own posteriors.

        They are used only as profiles of neighbors, so they need no gradient.
        """
        with torch.no_grad():
            categories = minibatch.categories[minibatch.n_core :]
            halo = minibatch.molecules[minibatch.n_core :]
            mean, _ = self.encode(minibatch.halo_features, categories, halo, dropout=False)
            return self.expression(mean, categories)

    def amount(self, minibatch: Minibatch, latent: Tensor, shares: Tensor) -> Tensor:
        """Return the expected molecules of each source, core × 3; only the first rows of `latent`, the core, are used.

        All sources sum to the observed molecules or, with a size factor, to the size of the cell times the molecules
        per size of cells with this latent. See :meth:`amount_of_all_genes` for queries that lack genes.
        """
        core = minibatch.n_core
        if not self.data.median_size:
            return minibatch.molecules[:core, None] * shares
        density: Tensor = self.density_decoder(latent[:core], minibatch.categories[:core])
        molecules = minibatch.size / self.data.median_size * density
        return molecules[:, None] * shares

    def amount_of_all_genes(self, amount: Tensor, own: Tensor, around: Tensor, background: Tensor) -> Tensor:
        """Return the expected molecules of each source in all genes, cells × 3, for three profiles.

        The shares are those of the molecules of all genes. In a query that lacks genes, unless the molecules follow
        from the size of a cell, there are as many as give those that were observed, in the measured genes.
        """
        if not self.data.unmeasured or self.data.median_size:
            return amount
        parts = [self.of_measured(profile).sum(dim=1) for profile in (own, around, background)]
        seen = (amount * torch.stack(parts, dim=1).detach()).sum(dim=1, keepdim=True)
        return amount * (amount.sum(dim=1, keepdim=True) / seen.clamp_min(_TINY))

    def rates(
        self, minibatch: Minibatch, expression: Tensor, amount: Tensor, weights: Tensor, background: Tensor
    ) -> Rates:
        """Return the expected molecules of the core cells by source, from the profiles of all cells."""
        around = self.neighbor_expression(minibatch, expression, weights)
        return self.rates_of(amount, expression[: minibatch.n_core], around, background[minibatch.core_batch])

    def rates_of(self, amount: Tensor, own: Tensor, around: Tensor, background: Tensor) -> Rates:
        """Return the rates of cells that have these molecules of each source, cells × 3, from three profiles.

        Genes that a query lacks have no rates. How much of a profile is in the measured genes has no gradient: counts
        that lack the other genes do not tell.
        """
        profiles = own, around, background
        if not self.data.unmeasured:
            return Rates.of(amount, *profiles)
        measured = self.is_measured()
        parts = [profile[:, measured].sum(dim=1, keepdim=True).clamp_min(_TINY) for profile in profiles]
        seen = [profile * measured * (part.detach() / part) for profile, part in zip(profiles, parts, strict=True)]
        return Rates.of(self.amount_of_all_genes(amount, *profiles), *seen)

    def likelihood(self, rates: Rates, concentration: Tensor, minibatch: Minibatch) -> dist.TorchDistribution:
        """Return the distribution of the core cells' counts given the rates."""
        if self.config.likelihood == "poisson":
            rate = (rates.signal + rates.background).clamp_min(_TINY)  # 0 has no gradient
            return dist.Poisson(rate, validate_args=False).to_event(1)
        group = self.concentration_group(minibatch.core_batch)
        return Delaporte(rates.signal, rates.background, concentration[group], validate_args=False)
