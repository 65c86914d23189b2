"""One classifier by itself, in its own runtime."""

from __future__ import annotations

from collections.abc import Sequence

from entailor.serving.batching import Job, Probabilities
from entailor.shipping.predictor import Predictor


class PredictorLane:
    """A classifier that shares nothing.

    Args:
        predictor: the classifier.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def run(self, jobs: Sequence[Job]) -> list[Probabilities]:
        """Return probabilities_L of each job."""
        return list(self.predictor.probabilities([job.example for job in jobs]))
