"""BitFit: of the checkpoint only the biases are trained, and the head (Ben Zaken et al. 2022, section 3)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from entailor.classifiers.gradient_path import keep_what_learns
from entailor.classifiers.transformer import TransformerClassifier
from entailor.errors import MethodError
from entailor.methods.base import AdapterMethod, HeadLearningRate, LearningRate, Range
from entailor.models.load import Backbone
from entailor.tasks import Task


class BitFit(AdapterMethod, name="bitfit"):
    """Train all biases of the checkpoint, and the head."""

    summary: ClassVar[str] = "biases alone"

    learning_rate: LearningRate = 3e-3
    head_learning_rate: HeadLearningRate = 1e-3

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> TransformerClassifier:
        """Return the classifier with the checkpoint's biases trainable.

        Raises:
            MethodError: no model, or one without biases.
        """
        backbone = self.needed(backbone)
        if reason := self.misfit(backbone.model):
            raise MethodError(f"bitfit does not fit {backbone.folder.name}: {reason}. Leave it out, or choose lora")
        classifier = TransformerClassifier(backbone, task)
        classifier.train_only_head()
        for bias in _biases(backbone.model).values():
            bias.requires_grad_(True)
        keep_what_learns(classifier, backbone, self.name)
        return classifier

    def misfit(self, architecture: Any) -> str | None:
        """Return that an architecture has no biases, as llama and modernbert have none."""
        return None if _biases(architecture) else f"{architecture.config.model_type} has no biases"

    def search_space(self) -> dict[str, Range]:
        """Return learning rates around those of the paper's appendix, with room on both sides."""
        return {"learning_rate": Range(1e-4, 1e-2), "head_learning_rate": Range(3e-4, 3e-3)}


def _biases(model: Any) -> dict[str, Tensor]:
    """Return the biases below the head, by name."""
    body: nn.Module = getattr(model, model.base_model_prefix)
    return {name: tensor for name, tensor in body.named_parameters() if name.rpartition(".")[2].endswith("bias")}
