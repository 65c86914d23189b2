"""Two contestants that train the same model on the same batches: Entailor's loop, and Trainer with peft.

The peer is run as its own documentation advises: fused AdamW, dynamic padding, no logging, no saving, no bars.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from measure import LABELS, now
from torch import nn

from entailor.config.experiment import DEFAULT_MODEL
from entailor.config.parts import ModelSettings
from entailor.data.example import Example
from entailor.engine import trainer as loop
from entailor.events import Observer
from entailor.methods import build_method
from entailor.models.device import main_device
from entailor.models.load import load_backbone, open_model, quiet_libraries
from entailor.models.precision import PrecisionChoice
from entailor.models.resolve.source import ModelFolder
from entailor.models.tokenizer import token_ids
from entailor.tasks import Task

TASK = Task(LABELS, is_pair=True)
FP32 = PrecisionChoice("fp32", "benchmarks compare fp32")
BF16 = PrecisionChoice("bf16", "asked for")
WARM_UP = 4
"""Steps before the clock starts."""
COMMON: dict[str, Any] = {
    "learning_rate": 1e-4,
    "head_learning_rate": None,
    "num_train_epochs": 1.0,
    "warmup_ratio": 0.0,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.01,
}
METHODS: dict[str, dict[str, Any]] = {
    "full_finetuning": {},
    "lora": {"r": 16, "lora_alpha": 32, "lora_dropout": 0.1},
    "p_tuning": {"num_virtual_tokens": 20},
    "p_tuning_peft": {"num_virtual_tokens": 20, "layout": "peft"},
}


@dataclass
class Contest:
    """One method on one model, both ways.

    Attributes:
        name: a key of METHODS.
        folder: the checkpoint.
        rows: labelled pairs.
        batch_size: examples of a batch.
        dropout: False switches every dropout off.
        bf16: both train in bf16 by autocast; otherwise in fp32.
        length: cut and lengthen every row to so many tokens; 0: as they are.
    """

    name: str
    folder: ModelFolder
    rows: Sequence[Example]
    batch_size: int = 8
    dropout: bool = True
    bf16: bool = False
    length: int = 0

    def __post_init__(self) -> None:
        """Make both contestants with the same weights, and encode the rows once."""
        settings = {**COMMON, **METHODS[self.name], "per_device_train_batch_size": self.batch_size}
        if "lora" in self.name:
            settings |= {} if self.dropout else {"lora_dropout": 0.0}
        self.method: Any = build_method(self.name.removesuffix("_peft"), settings)
        self.classifier: Any = self.method.adapt(self._backbone(), TASK, 0)
        self.inputs = self.classifier.encode(self.rows)
        if self.length:
            self.inputs = [_of_length(item, self.length) for item in self.inputs]
        self.targets = np.array(TASK.targets(self.rows))
        self.peer = self._make_peer()
        if not self.dropout:
            for model in (self.classifier, self.peer):
                for module in model.modules():
                    if isinstance(module, nn.Dropout):
                        module.p = 0.0

    def _backbone(self) -> Any:
        return load_backbone(
            self.folder, TASK, ModelSettings(), PrecisionChoice("bf16" if self.bf16 else "fp32", "asked for"), 0
        )

    def _make_peer(self) -> Any:
        """Return a model as a user of the peer makes it, then give it our start."""
        from peft import LoraConfig, PromptEncoderConfig, TaskType, get_peft_model
        from transformers import AutoModelForSequenceClassification

        with quiet_libraries():
            peer: Any = AutoModelForSequenceClassification.from_pretrained(
                self.folder.path, num_labels=len(LABELS), dtype=torch.float32
            )
            if self.name == "lora":
                lora = {key: getattr(self.method, key) for key in ("r", "lora_alpha", "lora_dropout")}
                config: Any = LoraConfig(TaskType.SEQ_CLS, target_modules="all-linear", **lora)
                config.modules_to_save = self.classifier.model.peft_config["default"].modules_to_save
                peer = get_peft_model(peer, config)
            elif self.name.startswith("p_tuning"):
                width = peer.config.hidden_size
                config = PromptEncoderConfig(TaskType.SEQ_CLS, num_virtual_tokens=20, encoder_hidden_size=width)
                if self.name == "p_tuning_peft":
                    config.modules_to_save = self.classifier.model.peft_config["default"].modules_to_save
                peer = get_peft_model(peer, config)
        if self.name != "p_tuning":  # that layout the peer does not have
            peer.load_state_dict(self.classifier.model.state_dict())
        return peer

    def grouped_batches(self, count: int) -> list[list[int]]:
        """Return batches of the peer's own sampler for `group_by_length`."""
        from transformers.trainer_pt_utils import LengthGroupedSampler

        lengths = [len(item) for item in self.inputs]
        sampler = LengthGroupedSampler(
            self.batch_size, lengths=lengths, dataset=self.inputs, generator=torch.Generator().manual_seed(0)
        )
        batches = self._cut(list(sampler), 50)  # within so many they run from long to short
        return batches[:: max(1, len(batches) // count)][:count]

    def random_batches(self, count: int) -> list[list[int]]:
        """Return batches in random order."""
        return self._cut(np.random.default_rng(0).permutation(len(self.inputs)).tolist(), count)

    def _cut(self, order: list[int], count: int) -> list[list[int]]:
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return batches[:count]

    def run_ours(self, batches: list[list[int]]) -> tuple[float, list[float]]:
        """Train on these batches with Entailor's loop; return examples a second after warming up, and the losses."""
        clock: dict[int, float] = {}
        method = self.method.model_copy(update={"logging_steps": 1} if not self.dropout else {"logging_steps": 10**6})
        data = loop.TrainingData(self.inputs, self.targets, self.inputs[:8], self.targets[:8])
        runtime = loop.LoopRuntime(
            0,
            torch.bfloat16 if self.bf16 else None,
            observer=Observer(lambda event: self._note_time(clock, event.data.done, batches)),
        )
        planned = loop.training_batches
        loop.training_batches = lambda *args, **settings: batches  # type: ignore[assignment]
        try:
            result = loop.train(self.classifier, method, data, runtime)
        finally:
            loop.training_batches = planned
        losses = [point.train_loss for point in result.curve if point.train_loss is not None]
        return self._speed(clock, batches), losses

    def run_peer(
        self, batches: list[list[int]], pad_to: int | None = None, *, half: bool | None = None
    ) -> tuple[float, list[float]]:
        """Train on these batches with Trainer; return examples a second after warming up, and the losses.

        Args:
            batches: indices of the rows.
            pad_to: pad every row to so many tokens instead of to the longest of its batch.
            half: whether the peer computes in bf16, by its own autocast; None: as we do.
        """
        from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

        logging.getLogger("accelerate").setLevel(logging.ERROR)
        clock: dict[int, float] = {}
        contest, on_cpu = self, main_device().type == "cpu"

        class Clock(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                contest._note_time(clock, state.global_step, batches)

        tokenizer = self.classifier.text_encoder.tokenizer
        collator = DataCollatorWithPadding(tokenizer, "max_length" if pad_to else True, max_length=pad_to)
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            options = TrainingArguments(
                folder,
                per_device_train_batch_size=self.batch_size,
                train_sampling_strategy="sequential",  # the batches come in the order of group_by_length already
                max_steps=len(batches),
                learning_rate=self.method.learning_rate,
                lr_scheduler_type="constant",
                weight_decay=self.method.weight_decay,
                max_grad_norm=self.method.max_grad_norm,
                optim="adamw_torch_fused",
                logging_strategy="no" if self.dropout else "steps",
                logging_steps=1,
                save_strategy="no",
                eval_strategy="no",
                report_to="none",
                disable_tqdm=True,
                bf16=self.bf16 if half is None else half,
                use_cpu=on_cpu,
                dataloader_pin_memory=not on_cpu,
            )
            made = Trainer(self.peer, options, collator, self._rows_of(batches), callbacks=[Clock()])
            made.pop_callback(_printer())
            made.train()
        losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
        return self._speed(clock, batches), losses

    def _rows_of(self, batches: list[list[int]]) -> list[dict[str, Any]]:
        rows = []
        for index in (index for batch in batches for index in batch):
            item = self.inputs[index]
            row = {"input_ids": list(item.input_ids), "attention_mask": [1] * len(item)}
            typed = {} if item.token_type_ids is None else {"token_type_ids": list(item.token_type_ids)}
            rows.append(row | typed | {"labels": int(self.targets[index])})
        return rows

    def _note_time(self, clock: dict[int, float], step: int, batches: list[list[int]]) -> None:
        """Note when a step was done; a GPU is waited for where the clock starts and where it stops, and not between."""
        if step in (WARM_UP, len(batches)) and torch.accelerator.is_available():
            torch.accelerator.synchronize()
        clock.setdefault(step, now())

    def _speed(self, clock: dict[int, float], batches: list[list[int]]) -> float:
        return sum(map(len, batches[WARM_UP:])) / (clock[len(batches)] - clock[WARM_UP])

    def tokens(self, batches: list[list[int]]) -> float:
        """Return the mean number of real tokens of an example."""
        return float(np.mean([len(self.inputs[index]) for batch in batches for index in batch]))


def _of_length(item: Any, length: int) -> Any:
    """Return an input of so many tokens, its own repeated in the middle or left out there."""
    inside = len(item) - 2
    order = [0, *(1 + place % inside for place in range(length - 2)), len(item) - 1]
    ids = [item.input_ids[place] for place in order]
    types = None if item.token_type_ids is None else sorted(item.token_type_ids[place] for place in order)
    return token_ids(item.example_index, ids, types, truncated=False)


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback


def default_model() -> ModelFolder:
    """Return the encoder that ships."""
    return open_model(DEFAULT_MODEL, ModelSettings())


def largest_gap(name: str, folder: ModelFolder, rows: Sequence[Example], steps: int = 20) -> float | None:
    """Return the largest difference of losses over the first steps with dropout off; None where there is no peer."""
    if name == "p_tuning":
        return None
    contest = Contest(name, folder, rows, dropout=False)
    batches = contest.grouped_batches(steps)
    ours, theirs = contest.run_ours(batches)[1], contest.run_peer(batches)[1]
    assert len(ours) == len(theirs) == steps
    return float(np.abs(np.array(ours) - np.array(theirs)).max())
