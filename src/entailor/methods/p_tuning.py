"""P-tuning: a few virtual tokens at the input, made by a small network, are all that is trained beside the head.

Liu et al. 2021, "GPT Understands, Too" (section 3); the prompt encoder is `peft`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn

from entailor.classifiers.base import Classifier
from entailor.classifiers.fitting import fitting
from entailor.classifiers.gradient_path import keep_what_learns
from entailor.classifiers.soft_prompt import SoftPromptClassifier, vocabulary_words
from entailor.classifiers.transformer import (
    WEIGHTS_FILE,
    PeftClassifier,
    TransformerClassifier,
    save_tensors,
    task_type,
)
from entailor.methods.base import LearningRate, SoftPromptMethod
from entailor.models.load import Backbone
from entailor.models.sizes import required_size, text_size
from entailor.tasks import Task


class PTuning(SoftPromptMethod, name="p_tuning"):
    """Train virtual tokens through a prompt encoder, and the head."""

    summary: ClassVar[str] = "virtual tokens at the input"

    learning_rate: LearningRate = 1e-2
    encoder_hidden_size: int | None = Field(default=None, ge=1, le=65_536)
    """Width of the prompt encoder; None: the model's hidden size."""
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    """Kind of the prompt encoder."""
    encoder_num_layers: int = Field(default=2, ge=1, le=100)
    """Layers of an LSTM prompt encoder; an MLP always has two hidden ones."""
    encoder_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout between the layers of an LSTM."""
    layout: Literal["after_first", "peft"] = "after_first"
    """after_first: behind the first token. peft: in front of it, as `peft` does it; loads with plain `peft`."""
    init: Literal["vocabulary", "random"] = "vocabulary"
    """vocabulary: start at the embeddings of ordinary words. random: as `peft` starts."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> Classifier:
        """Return the classifier; with the peft layout, init and pooling are `peft`'s own.

        Raises:
            MethodError: no model, or the peft layout on a model it does not fit.
        """
        backbone = self.needed(backbone)
        with torch.random.fork_rng(devices=[]), fitting(backbone, self.name):
            torch.manual_seed(seed)
            config = self._config(backbone)
            classifier: TransformerClassifier
            if self.layout == "peft":
                classifier = PeftClassifier(backbone, task, config)
            else:
                classifier = PTuningClassifier(self, backbone, task, config, seed)
        keep_what_learns(classifier, backbone, self.name)
        return classifier

    def _config(self, backbone: Backbone) -> Any:
        from peft import PromptEncoderConfig

        shape = backbone.model.config
        return PromptEncoderConfig(
            task_type=task_type(backbone),
            num_virtual_tokens=self.num_virtual_tokens,
            token_dim=backbone.model.get_input_embeddings().embedding_dim,
            num_transformer_submodules=1,
            num_attention_heads=text_size(shape, "num_attention_heads") or 1,  # for the record alone: fnet has none
            num_layers=required_size(shape, "num_hidden_layers"),
            encoder_hidden_size=self.encoder_hidden_size or required_size(shape, "hidden_size"),
            encoder_reparameterization_type=self.encoder_reparameterization_type,
            encoder_num_layers=self.encoder_num_layers,
            encoder_dropout=self.encoder_dropout,
        )


class PTuningClassifier(SoftPromptClassifier):
    """Virtual tokens from `peft`'s prompt encoder; once saved, only what it gave is kept."""

    def __init__(self, method: PTuning, backbone: Backbone, task: Task, config: Any, seed: int) -> None:
        from peft import PromptEncoder

        super().__init__(backbone, task, method.num_virtual_tokens, method.pooling, seed)
        self.prompt_encoder: nn.Module | None = PromptEncoder(config).to(backbone.device)
        self.fixed_NE: Tensor | None = None
        if method.init == "vocabulary":
            words = vocabulary_words(backbone.text_encoder.tokenizer, method.num_virtual_tokens, seed)
            table = backbone.model.get_input_embeddings().weight
            start_at(self.prompt_encoder, table[torch.tensor(words, device=table.device)].detach().float())

    def prompt(self) -> Tensor:
        """Return prompt_NE."""
        if self.prompt_encoder is None:
            assert self.fixed_NE is not None
            return self.fixed_NE
        indices = torch.arange(self.num_virtual_tokens, device=self.device)
        prompt_NE: Tensor = self.prompt_encoder(indices.unsqueeze(0))[0]
        return prompt_NE

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        parameter: Tensor = next(self.model.parameters())
        return parameter.device

    def stored_tensors(self) -> dict[str, Tensor]:
        """Return the virtual tokens as they came out, and the head."""
        heads = {name: tensor for name, tensor in self.trained_state().items() if self.is_head(name)}
        with torch.no_grad():
            return {"prompt_embeddings": self.prompt().detach(), **heads}

    def save(self, folder: Path) -> None:
        """Write virtual tokens and head. No `peft` configuration: its layout is another one."""
        save_tensors(self.stored_tensors(), folder / WEIGHTS_FILE)

    def load(self, folder: Path) -> None:
        """Put saved virtual tokens in the prompt encoder's place."""
        saved = load_file(folder / WEIGHTS_FILE)
        prompt_NE, expected_NE = saved.pop("prompt_embeddings"), self.prompt()
        if prompt_NE.shape != expected_NE.shape:
            raise ValueError(f"prompt_embeddings of {tuple(prompt_NE.shape)}, expected {tuple(expected_NE.shape)}")
        self.fixed_NE = prompt_NE.to(self.device)
        self.prompt_encoder = None
        self.copy_tensors(saved, folder / WEIGHTS_FILE)


def start_at(prompt_encoder: nn.Module, target_NE: Tensor) -> None:
    """Set the last layer of a prompt encoder so that it gives `target_NE`, exactly where it is wide enough.

    Least squares on the last layer alone: what comes before keeps its random start, so every virtual token can still
    go its own way.

    Args:
        prompt_encoder: `peft`'s PromptEncoder; changed in place.
        target_NE: embeddings of real words.
    """
    encoder: Any = prompt_encoder
    with torch.no_grad():
        hidden_1NF = encoder.embedding.weight.unsqueeze(0)
        if hasattr(encoder, "lstm_head"):
            hidden_1NF = encoder.lstm_head(hidden_1NF)[0]
        hidden_NF = encoder.mlp_head[:-1](hidden_1NF)[0]
        last = encoder.mlp_head[-1]
        last.bias.copy_(target_NE.mean(0))
        last.weight.copy_((torch.linalg.pinv(hidden_NF) @ (target_NE - last.bias)).T)
