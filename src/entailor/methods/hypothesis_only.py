"""TF-IDF and logistic regression on the hypothesis alone.

It finds annotation artefacts (Gururangan et al. 2018; Poliak et al. 2018): where it beats the majority, the data gives
labels away without the premise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from entailor.errors import MethodError
from entailor.methods.bag_of_words import BagOfWords, BagOfWordsClassifier
from entailor.tasks import Task

if TYPE_CHECKING:
    from entailor.models.load import Backbone


class HypothesisOnly(BagOfWords, name="hypothesis_only"):
    """Bag of words on the second text of a pair alone."""

    summary: ClassVar[str] = "TF-IDF and logistic regression on the second text alone"
    needs_pair: ClassVar[bool] = True

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> BagOfWordsClassifier:
        """Return the unfitted classifier.

        Raises:
            MethodError: the task has no second text.
        """
        if not task.is_pair:
            raise MethodError("hypothesis_only reads the second text of a pair, and the data have single texts")
        return BagOfWordsClassifier(self, task, ("text_pair",))
