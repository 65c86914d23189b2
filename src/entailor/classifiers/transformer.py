"""The classifier of every method that runs tokens through a `transformers` model.

Holds no training and no hyperparameters: methods choose what is trainable, the engine moves it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from entailor.accel.dropout import replace_dropout
from entailor.accel.embedding_rows import EmbeddingRows, rows_that_occur
from entailor.accel.masks import ask_no_masks, known_padding
from entailor.accel.shortcut import PROOF_LENGTHS, Shortcut
from entailor.classifiers.base import Classifier, count_parameters, pad_ids
from entailor.classifiers.layer_patterns import check_layer_patterns
from entailor.classifiers.padding import reads_padding
from entailor.classifiers.readout import LabelReads, build_readout, plan_reads
from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.models.device import send
from entailor.models.heads import add_to_bias, head_modules
from entailor.models.load import Backbone, quiet_libraries
from entailor.models.prompts import PromptIds
from entailor.models.sharded import is_divided
from entailor.models.tokenizer import TokenIds, token_ids
from entailor.tasks import Task

PROOF_INPUTS = 4
WEIGHTS_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded token ids of a batch.

    Attributes:
        ids_BT: token ids.
        mask_BT: 1 at real tokens; made from lengths, never from ids. Trees of prompts: what is added to the scores of
            attention, (B, 1, T, T).
        types_BT: token types, or None where the model has none.
        lengths_B: real tokens of each row; on the CPU.
        reads: where label words are read, or None.
        positions_BT: of each token, where they do not follow one another.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    types_BT: Tensor | None
    lengths_B: Tensor
    reads: LabelReads | None = None
    positions_BT: Tensor | None = None

    @property
    def padded(self) -> bool:
        """Whether its rows have different lengths; while torch exports a graph, which is for any batch, they may."""
        return torch.compiler.is_exporting() or bool((self.lengths_B != self.lengths_B[0]).any())

    def of_one_length(self, rows_b: Tensor) -> TokenBatch:
        """Return some of its rows, all of one length, without padding; there must be no reads or positions."""
        length = int(self.lengths_B[rows_b[0]])
        rows, types_BT = send(rows_b, self.ids_BT.device), self.types_BT
        return replace(
            self,
            ids_BT=self.ids_BT[rows, :length],
            mask_BT=self.mask_BT[rows, :length],
            types_BT=None if types_BT is None else types_BT[rows, :length],
            lengths_B=self.lengths_B[rows_b],
        )


class TransformerClassifier(nn.Module, Classifier):
    """A sequence classifier or causal language model of `transformers`, some of its tensors trainable.

    Args:
        backbone: the loaded checkpoint.
        task: labels and input shape.
        reserve: positions kept free for virtual tokens.

    Attributes:
        inner: what stands in front of the names of the checkpoint's own parameters.
        virtual_tokens: how far real tokens are moved by virtual ones.
    """

    inner = "model."
    virtual_tokens = 0

    def __init__(self, backbone: Backbone, task: Task, reserve: int = 0) -> None:
        super().__init__()
        self.task = task
        self.model = backbone.model
        replace_dropout(backbone.model)
        ask_no_masks(backbone.model)
        self.shortcut = Shortcut(getattr(backbone.model, backbone.model.base_model_prefix))
        if backbone.kind != "encoder":
            self.shortcut.proven = False
        self.layers = backbone.layers
        self.text_encoder = backbone.text_encoder
        self.reserve = reserve
        backbone.text_encoder.room_beside(reserve)  # said now, and not after the data are read
        self.new_modules = backbone.new_modules
        # the output layer of a language model is no head: it stays as it is
        self.head_names = tuple(head_modules(backbone.model)) if backbone.kind != "language_model" else ()
        self.pad_id = int(backbone.text_encoder.tokenizer.pad_token_id)
        self.readout = build_readout(backbone)
        run = functools.partial(
            TransformerClassifier.plain_forward, self
        )  # as the backbone is, whatever a subclass adds
        self.equal_lengths = backbone.kind == "encoder" and reads_padding(backbone, task, self.collate, run)
        if self.equal_lengths:
            backbone.events += (
                f"runs without padding, texts of one length at a time: {backbone.model.config.model_type} reads what "
                "the attention mask hides, so scores would depend on the batch",
            )
        self.rows_trouble: str | None = None

    @property
    def pads(self) -> bool:
        """Whether padding is computed: not by the shortcut."""
        return not self.packs()

    def notes(self) -> tuple[str, ...]:
        """Return why a shortcut could not be tried, where that is so."""
        return tuple(trouble for trouble in (self.shortcut.trouble, self.rows_trouble) if trouble is not None)

    def packs(self) -> bool:
        """Whether the shortcut is taken; proven here where it is not yet, so that the first batch is as all others."""
        if not self.shortcut.fits():
            return False
        if self.shortcut.proven is None:
            self.shortcut.prove(
                self,
                lambda: self.plain_forward(self.made_up_batch()),
                lambda: self.short_forward(self.made_up_batch()),
            )
        return bool(self.shortcut.proven)

    def encode(self, examples: Sequence[Example]) -> Sequence[TokenIds | PromptIds]:
        """Tokenise, leaving room for virtual tokens."""
        return self.text_encoder.encode(examples, self.reserve)

    def collate(self, inputs: Sequence[Any]) -> TokenBatch:
        """Pad to the longest input of the batch; a prompt may stand in several rows, see `plan_reads`."""
        reads = None
        rows = [item.input_ids for item in inputs]
        if getattr(inputs[0], "continuations", ()):
            rows, reads = plan_reads(inputs)
        device = next(self.parameters()).device
        ids_BT = pad_ids(rows, self.pad_id)
        lengths_B = torch.tensor([len(row) for row in rows])
        mask_BT = (torch.arange(ids_BT.shape[1]) < lengths_B[:, None]).long()
        typed = inputs[0].token_type_ids is not None
        types_BT = send(pad_ids([item.token_type_ids or [] for item in inputs], 0), device) if typed else None
        return TokenBatch(send(ids_BT, device), send(mask_BT, device), types_BT, lengths_B, reads and reads.on(device))

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return logits_BL, float32; without padding in between and the last layer for what is read, where it fits."""
        return self.short_forward(batch) if self.packs() else self._run(self.plain_forward, batch)

    def _run(self, one: Callable[[TokenBatch], Tensor], batch: TokenBatch) -> Tensor:
        """Run a batch, or each length in it by itself where the architecture reads padding."""
        if not (self.equal_lengths and batch.padded):
            return one(batch)
        rows = [(batch.lengths_B == length).nonzero().flatten() for length in sorted(set(batch.lengths_B.tolist()))]
        parts = torch.cat([one(batch.of_one_length(rows_b)) for rows_b in rows])
        return parts[send(torch.cat(rows).argsort(), parts.device)]

    def rows_to_train(self, inputs: Sequence[Any]) -> EmbeddingRows | None:
        """Put the rows of the word embedding that occur in its place, where it is trained; see the base class."""
        try:
            embedding = self.model.get_input_embeddings()
        except (AttributeError, NotImplementedError):
            return None
        if is_divided(self):
            return None
        if getattr(inputs[0], "continuations", ()):  # whose tokens stand beside the inputs' own
            return None
        self.packs()  # whose proof reads other tokens
        occurring = {self.pad_id}.union(*(item.input_ids for item in inputs))
        batch = self.collate(inputs[:PROOF_INPUTS])
        rows, self.rows_trouble = rows_that_occur(self, embedding, sorted(occurring), lambda: self(batch))
        return rows

    def made_up_batch(self) -> TokenBatch:
        """Return rows of random tokens, the same ones for every model of a vocabulary."""
        rng, words = np.random.default_rng(0), self.text_encoder.tokenizer.vocab_size
        ids = [[int(word) for word in rng.integers(words, size=length)] for length in PROOF_LENGTHS]
        typed = [0] if getattr(self.text_encoder, "has_types", False) else None
        return self.collate(
            [
                token_ids(
                    row,
                    [int(self.pad_id == 0) if word == self.pad_id else word for word in words],
                    typed and typed * len(words),
                    truncated=False,
                )
                for row, words in enumerate(ids)
            ]
        )

    def short_forward(self, batch: TokenBatch) -> Tensor:
        """Return logits_BL by the shortcut: these heads read the first token."""
        with self.shortcut.taken([length + self.virtual_tokens for length in batch.lengths_B.tolist()], unread=None):
            return self.plain_forward(batch)

    def plain_forward(self, batch: TokenBatch) -> Tensor:
        """Return logits_BL as `transformers` computes them."""
        inputs = {"input_ids": batch.ids_BT, "attention_mask": batch.mask_BT}
        if batch.types_BT is not None:
            inputs["token_type_ids"] = batch.types_BT
        with known_padding(batch.padded):
            return self.readout.logits(self.model, inputs, batch, self.virtual_tokens).float()

    def mean_states(self, batch: TokenBatch) -> Tensor:
        """Return the mean of the last hidden states over real tokens, (B, H), without gradients."""
        return self._run(self._mean_states, batch)

    def _mean_states(self, batch: TokenBatch) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": batch.ids_BT, "attention_mask": batch.mask_BT}
        if batch.types_BT is not None:
            inputs["token_type_ids"] = batch.types_BT
        with torch.no_grad(), known_padding(batch.padded):
            hidden_BTH = getattr(self.model, self.model.base_model_prefix)(**inputs).last_hidden_state
        if hidden_BTH.shape[1] != batch.mask_BT.shape[1]:
            raise MethodError(
                f"{self.model.config.model_type} gives no state for each token ({hidden_BTH.shape[1]} for "
                f"{batch.mask_BT.shape[1]}), so its vectors cannot be averaged. Choose another model"
            )
        mask_BT1 = batch.mask_BT.unsqueeze(-1).to(hidden_BTH.dtype)
        mean_BH: Tensor = (hidden_BTH * mask_BT1).sum(1) / mask_BT1.sum(1)
        return mean_BH

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return logits_BL, float32."""
        logits_BL: Tensor = self(batch)
        offset_L = self.offset_L
        return logits_BL if offset_L is None else logits_BL + send(torch.from_numpy(offset_L).float(), logits_BL.device)

    @property
    def tokens_together(self) -> int | None:
        """Tokens of the batches that go through layer by layer, under model.stream."""
        return None if self.layers is None else self.layers.tokens

    def logits_together(self, batches: Sequence[Any]) -> list[Tensor]:
        """Return the logits of several batches, computed layer by layer under model.stream."""
        if self.layers is None:
            return [self.logits(batch) for batch in batches]
        return self.layers.run([functools.partial(self.logits, batch) for batch in batches])

    def shift(self, shift_L: NDArray[np.float64]) -> None:
        """Add to the biases of the trained output layer; without them to `offset_L`."""
        if not add_to_bias((one for name, one in self.named_modules() if self.is_head(f"{name}.weight")), shift_L):
            self.offset_L = shift_L + (0.0 if self.offset_L is None else self.offset_L)

    def is_head(self, name: str) -> bool:
        """Tell whether a parameter belongs to the head or to another newly initialised module."""
        path = name.removeprefix(self.inner)
        return path.split(".")[0] in self.head_names or any(path.startswith(f"{new}.") for new in self.new_modules)

    def train_only_head(self) -> None:
        """Freeze everything but the head and what else is new."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.is_head(name))

    def trained_state(self) -> dict[str, Tensor]:
        """Return the trainable tensors by name."""
        return {name: tensor.detach() for name, tensor in self.named_parameters() if tensor.requires_grad}

    def save(self, folder: Path) -> None:
        """Write the trained tensors as safetensors."""
        save_tensors(self.trained_state(), folder / WEIGHTS_FILE)

    def load(self, folder: Path) -> None:
        """Read the trained tensors back."""
        self.copy_tensors(load_file(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)

    def copy_tensors(self, saved: dict[str, Tensor], path: Path) -> None:
        """Copy saved tensors into the trainable ones; every one must be there.

        Raises:
            MethodError: a tensor is missing, left over or of another shape.
        """
        targets = self.trained_state()
        check_same_names(saved, targets, path)
        for name, tensor in saved.items():
            if targets[name].shape != tensor.shape:
                shapes = f"{tuple(tensor.shape)}, expected {tuple(targets[name].shape)}"
                raise MethodError(f"{path}: {name} has shape {shapes}. Train again")
            targets[name].copy_(tensor)

    def stored_tensors(self) -> dict[str, Tensor]:
        """Return what :meth:`save` writes, for counting."""
        return self.trained_state()

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return how many parameters are trained, stored, and there in all."""
        trained = count_parameters(tensor for tensor in self.parameters() if tensor.requires_grad)
        return trained, count_parameters(self.stored_tensors().values()), count_parameters(self.parameters())


class PeftClassifier(TransformerClassifier):
    """A classifier whose trainable part is a `peft` adapter and the head.

    What it saves loads with plain `peft` and `transformers`.
    """

    inner = "model.base_model.model."

    def __init__(self, backbone: Backbone, task: Task, config: Any) -> None:
        from peft import PeftModelForCausalLM, PeftModelForSequenceClassification
        from transformers.pytorch_utils import Conv1D

        reserve = getattr(config, "num_virtual_tokens", None) or 0
        super().__init__(backbone, task, reserve)
        is_classifier = backbone.kind != "language_model"
        if is_classifier and not hasattr(config, "modules_to_save"):
            raise MethodError(f"{config.peft_type.value}: cannot save a classification head. Choose another adapter")
        # peft adds the names "classifier" and "score" itself; heads of more parts and new poolers it does not know
        heads = trainable_heads(backbone) if is_classifier else []
        if config.is_prompt_learning:
            # prefix tuning puts keys and values in front, and no positions
            in_front = 0 if config.peft_type.value == "PREFIX_TUNING" else reserve
            self.inner, self.virtual_tokens = "model.base_model.", in_front
            heads = [f"base_model.{name}" for name in heads]  # "head" alone would match the prompt encoder's own layers
        if heads:
            config.modules_to_save = sorted({*(config.modules_to_save or ()), *heads})
        if hasattr(config, "fan_in_fan_out"):  # gpt2's linear layers hold their weights the other way round
            config.fan_in_fan_out = any(isinstance(layer, Conv1D) for layer in backbone.model.modules())
        check_layer_patterns(config, backbone.model)
        wrapper = PeftModelForSequenceClassification if is_classifier else PeftModelForCausalLM
        with quiet_libraries():
            self.model = wrapper(backbone.model, config)
        if config.is_prompt_learning:  # peft leaves the virtual tokens' ids on the CPU, and moves them at each step
            tokens = self.model.prompt_tokens
            tokens |= {name: ids.to(backbone.device) for name, ids in tokens.items() if ids is not None}
        replace_dropout(self.model)

    def save(self, folder: Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors as `peft` does, and the tokenizer."""
        self.model.save_pretrained(folder, safe_serialization=True)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        self._sort_sets(folder / "adapter_config.json")
        self.text_encoder.tokenizer.save_pretrained(folder)

    def _sort_sets(self, config_file: Path) -> None:
        """Bring what `peft` holds as sets into one order: else two runs of the same experiment write other files."""
        (config,) = self.model.peft_config.values()
        values = json.loads(config_file.read_text(encoding="utf-8"))
        unordered = {name for name in values if isinstance(getattr(config, name, None), set)}
        values = {name: sorted(value) if name in unordered else value for name, value in values.items()}
        text = json.dumps(values, indent=2, sort_keys=True)
        config_file.write_text(text, encoding="utf-8", newline="\n")

    def load(self, folder: Path) -> None:
        """Read adapter and head back.

        Raises:
            MethodError: a tensor is missing or left over.
        """
        from peft import load_peft_weights, set_peft_model_state_dict

        if not (folder / WEIGHTS_FILE).is_file():  # peft would go on to look for a pickle, or ask the Hub
            raise MethodError(f"{folder / WEIGHTS_FILE}: missing. Train again")
        saved = load_peft_weights(str(folder), device="cpu")
        check_same_names(saved, self.stored_tensors(), folder)
        set_peft_model_state_dict(self.model, saved)
        for config in self.model.peft_config.values():
            # what a prompt encoder gave is saved in its place, and stands ready from now on
            config.inference_mode = config.is_prompt_learning

    def stored_tensors(self) -> dict[str, Tensor]:
        """Return what `peft` saves."""
        from peft import get_peft_model_state_dict

        state: dict[str, Tensor] = get_peft_model_state_dict(self.model)
        return state


def task_type(backbone: Backbone) -> Any:
    """Return `peft`'s name for what a loaded checkpoint does: it follows from the task, and nobody chooses it."""
    from peft import TaskType

    return TaskType.CAUSAL_LM if backbone.kind == "language_model" else TaskType.SEQ_CLS


def trainable_heads(backbone: Backbone) -> list[str]:
    """Return the modules beside the adapter that must be trained and saved: the head and whatever is new."""
    heads = {name for name, module in head_modules(backbone.model).items() if any(True for _ in module.parameters())}
    return sorted(heads | {name for name in backbone.new_modules if name.split(".")[0] not in heads})


def check_same_names(saved: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    """Hold the names of saved tensors against those that belong there.

    Raises:
        MethodError: one is missing or left over.
    """
    if odd := sorted(set(saved) ^ set(expected)):
        raise MethodError(f"{path}: {len(odd)} tensors are missing or left over, e.g. {odd[0]}. Train again")


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, contiguous and on the CPU."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
