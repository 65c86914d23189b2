"""Every weight of the checkpoint is trained (Devlin et al. 2019, section 3)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from entailor.classifiers.gradient_path import keep_what_learns
from entailor.classifiers.transformer import TransformerClassifier
from entailor.errors import MethodError
from entailor.methods.base import LearningRate, Range, TrainedMethod
from entailor.models.load import Backbone, quiet_libraries
from entailor.tasks import Task


class FullFinetuning(TrainedMethod, name="full_finetuning"):
    """Train all weights and save the whole model."""

    summary: ClassVar[str] = "every weight is trained"
    stores_whole_model: ClassVar[bool] = True
    train_passes: ClassVar[float] = 3.0

    learning_rate: LearningRate = 5e-5

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> FullClassifier:
        """Return the classifier with every weight trainable.

        Raises:
            MethodError: no model, or one whose weights are quantised.
        """
        backbone = self.needed(backbone)
        if backbone.quantized:
            raise MethodError(
                f"{self.name}: weights in 4 or 8 bits cannot be trained. Train lora on the same model, or set "
                "model.load_in_4bit=false and model.load_in_8bit=false"
            )
        classifier = FullClassifier(backbone, task)
        keep_what_learns(classifier, backbone, self.name)
        return classifier

    def search_space(self) -> dict[str, Range]:
        """Return the learning rates of Devlin et al. 2019, appendix A.3, with room on both sides."""
        return {"learning_rate": Range(1e-5, 2e-4)}


class FullClassifier(TransformerClassifier):
    """All weights trainable; saved as a checkpoint that `AutoModelForSequenceClassification` loads."""

    def save(self, folder: Path) -> None:
        """Write config.json, model.safetensors and the tokenizer."""
        with quiet_libraries():
            self.model.save_pretrained(folder, safe_serialization=True)
        self.text_encoder.tokenizer.save_pretrained(folder)

    def load(self, folder: Path) -> None:
        """Nothing to do: the backbone was loaded from the saved folder."""
