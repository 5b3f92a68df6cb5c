"""Schedule that decides when to lower the learning rate and when to stop."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["DecayWhenFlat"]

_DECAY_SHARE = 0.3
_LAST_FACTOR = 0.02


@dataclass
class DecayWhenFlat:
    """Constant learning rate, then a linear decay, then stop.

    With a given number of epochs, the decay takes the last three tenths of them. Otherwise, the decay starts when the
    ELBO has become flat, takes 3/7 as many epochs as there were before it, and ends the training.

    Attributes
    ----------
    max_epochs
        Exact number of epochs, or None.
    epoch_limit
        Largest number of epochs if `max_epochs` is None.
    min_epochs
        Number of epochs before which the ELBO does not count as flat.
    window
        The ELBO is flat if its mean over the last `window` epochs exceeds that over the `window` epochs before by less
        than a fraction `tolerance` of the gain since the first epoch.
    tolerance
        See `window`.
    """

    max_epochs: int | None
    epoch_limit: int
    min_epochs: int
    window: int
    tolerance: float = 0.004
    elbo: list[float] = field(default_factory=list)
    decay_from: int | None = None

    @property
    def n_epochs(self) -> int:
        """Number of epochs that will have been run at the end, as far as is known."""
        if self.max_epochs is not None:
            return self.max_epochs
        if self.decay_from is None:
            return self.epoch_limit
        return min(self.epoch_limit, self.decay_from + self._decay_epochs(self.decay_from))

    def _decay_epochs(self, start: int) -> int:
        return max(3, round(start * _DECAY_SHARE / (1 - _DECAY_SHARE)))

    def observe(self, elbo: float) -> None:
        """Record the mean ELBO of an epoch that has ended."""
        self.elbo.append(elbo)
        done = len(self.elbo)
        if self.max_epochs is None and self.decay_from is None:
            latest = done + self._decay_epochs(done) >= self.epoch_limit
            if latest or self._is_flat(self.elbo):
                self.decay_from = done

    def _is_flat(self, elbo: list[float]) -> bool:
        w = self.window
        if len(elbo) < max(self.min_epochs, 2 * w + 1):
            return False
        spans = slice(-2 * w, -w), slice(-w, None)
        before, now = (float(np.mean(elbo[span])) for span in spans)
        gained = now - elbo[0]
        return now - before < self.tolerance * max(gained, 0.0)

    def take_up(self, elbo: list[float], decay_from: int | None) -> None:
        """Continue an earlier training, unless it had converged; a decay that its lower limit caused is forgotten."""
        self.elbo, self.decay_from = elbo, decay_from
        if self.max_epochs is None and decay_from is not None:
            caused = decay_from + self._decay_epochs(decay_from) >= self.epoch_limit
            if not caused and not self._is_flat(elbo[:decay_from]):
                self.decay_from = None

    @property
    def finished(self) -> bool:
        """Whether the training has finished."""
        return len(self.elbo) >= self.n_epochs

    def factor(self, progress: float) -> float:
        """Return the learning rate over its initial value, `progress` epochs (a fractional number) into training."""
        if self.max_epochs is not None:
            start: float | None = self.max_epochs * (1 - _DECAY_SHARE)
        else:
            start = self.decay_from
        if start is None or progress <= start:
            return 1.0
        return max(_LAST_FACTOR, 1.0 - (progress - start) / max(self.n_epochs - start, 1e-9))
