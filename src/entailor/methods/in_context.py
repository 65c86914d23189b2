"""In-context classification: a decoder is asked, with no or few solved examples in front, and nothing is trained.

Brown et al. 2020, section 2; every label word is scored with all its tokens. Label bias is taken off by one of: PMI
(Holtzman et al. 2021), contextual calibration (Zhao et al. 2021), batch calibration (Zhou et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from entailor.accel.gate import ROUNDING, TOLERANCE, Verdict, prove
from entailor.accel.masks import known_padding
from entailor.accel.prefix_cache import SharedPrefix, can_share
from entailor.accel.token_tree import PromptTree, can_branch, grow_trees
from entailor.classifiers.base import PromptedClassifier, count_parameters, pad_ids
from entailor.classifiers.readout import LabelWords, plan_tree_reads
from entailor.classifiers.thresholds import ThresholdCosts, Thresholds
from entailor.classifiers.transformer import TokenBatch, TransformerClassifier
from entailor.config.plain import figure
from entailor.data.example import Example
from entailor.methods.demonstrations import DemonstratedMethod, Demonstrations
from entailor.models.device import send
from entailor.models.load import Backbone, Family, Objective
from entailor.models.prompts import PromptEncoder, PromptIds, common_prefix
from entailor.runs.files import read_json, write_json
from entailor.tasks import Task

STATE_FILE = "in_context.json"
CONTENT_FREE = ("N/A", "[MASK]", "")  # Zhao et al. 2021, section 5
Way = Literal["prefix", "trees"]
WAYS: tuple[Way, ...] = get_args(Way)
MADE_UP_TOKENS = 12  # of each piece of the prompts a shortcut is proven on; more than trees and prefixes ask for
SHORTEST_PREFIX = 8  # tokens below which a shared beginning is not worth a pass of its own


class InContext(DemonstratedMethod, name="in_context"):
    """Ask a decoder for the label word; demonstrations come from train alone, another draw with each seed."""

    summary: ClassVar[str] = "zero-, one- or few-shot prompting"
    training_free: ClassVar[bool] = True
    families: ClassVar[frozenset[Family]] = frozenset({"decoder"})
    train_passes: ClassVar[float] = 0.0

    calibration: Literal["none", "pmi", "contextual", "batch"] = "none"
    """Label bias that is subtracted. pmi: of the words behind the bare end of the prompt. contextual: behind texts that
    say nothing. batch: the mean over the validation split, whose labels are not looked at."""
    length_normalized: bool = False
    """Divide a word's log-probability by its number of tokens."""
    fit_temperature: bool = False
    """Fit a softmax temperature on the validation split; changes probabilities, never the answer."""
    thresholds: Thresholds = "none"
    costs: ThresholdCosts = Field(default_factory=dict)

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> InContextClassifier:
        """Return the classifier, still without demonstrations.

        Raises:
            MethodError: no model, or demonstrations that are asked for in two ways.
        """
        self.check(task)
        return InContextClassifier(self, self.needed(backbone), task, seed)

    @property
    def calibrates_on_validation(self) -> bool:
        """Whether the validation split must be scored before test."""
        return self.calibration == "batch" or self.fit_temperature

    @property
    def objective(self) -> Objective:
        """The output layer is what answers."""
        return "language_model"


class InContextClassifier(TransformerClassifier, PromptedClassifier):
    """A frozen decoder, demonstrations, and what is taken off its label logits.

    Attributes:
        demonstrations: the solved examples in its prompts.
        bias_L: label bias that is subtracted.
        temperature: what label logits are divided by.
    """

    def __init__(self, method: InContext, backbone: Backbone, task: Task, seed: int) -> None:
        super().__init__(backbone, task)
        self.method = method
        self.prompts: PromptEncoder = self.text_encoder  # type: ignore[assignment]
        self.readout = LabelWords(whole_vocabulary=method.length_normalized)
        self.demonstrations = Demonstrations(method, task, seed)
        self.bias_L = torch.zeros(len(task.labels))
        self.temperature = 1.0
        self.prefix: SharedPrefix | None = None
        self._last_prompt: list[int] = []
        self._proven: dict[Way, Verdict] = {}

    # --- what is chosen from train and validation

    @property
    def needs_validation(self) -> bool:
        """Whether the validation split must be scored before `calibrate`."""
        return self.method.calibrates_on_validation

    def demonstrate(self, train: Sequence[Example]) -> tuple[str, ...]:
        """Choose demonstrations from train alone, and estimate the bias that needs no data.

        Raises:
            MethodError: fewer training examples than demonstrations, or an id that is not in train.
        """
        chosen = self.demonstrations.choose(train)
        if self.method.calibration in ("pmi", "contextual"):
            self.bias_L = self._prior()
        if can_share(self.model.config, 0):  # proven now, so that the record says what could not be tried
            for way in WAYS if self.demonstrations.shots else WAYS[1:]:
                self._is_exact(way)
        return chosen

    def notes(self) -> tuple[str, ...]:
        """Return which shortcuts could not be tried, and why."""
        return (*super().notes(), *(one.trouble for one in self._proven.values() if one.trouble))

    def calibrate(self, logprobs_EL: NDArray[np.float64], targets_E: NDArray[np.int64]) -> tuple[str, ...]:
        """Fit batch calibration (labels unseen) and temperature on the validation split.

        Args:
            logprobs_EL: label log-probabilities of the validation split, nothing taken off.
            targets_E: its output indices; only the temperature looks at them.
        """
        if self.method.calibration == "batch":
            self.bias_L = torch.from_numpy(np.log(np.exp(logprobs_EL).mean(0))).float()
        if self.method.fit_temperature:
            self.temperature = best_temperature(logprobs_EL - self.bias_L.numpy(), targets_E)
            return (f"temperature {figure(self.temperature, 3)}, fitted on validation",)
        return ()

    def _prior(self) -> Tensor:
        """Return log-probabilities of the labels where there is nothing to go by, bias_L."""
        if self.method.calibration == "pmi":
            inputs = [self.prompts.plain(self.prompts.template.bare_end())]
        else:
            second = [text if self.task.is_pair else None for text in CONTENT_FREE]
            empty = [Example(f"free-{i}", text, second[i]) for i, text in enumerate(CONTENT_FREE)]
            inputs = self.prompts.encode(empty, shots=self.demonstrations.before(empty))
        with torch.no_grad():
            logits_BL = self._label_logits(self.collate(inputs))
        if self.method.calibration == "pmi":
            return logits_BL[0].cpu()
        return torch.softmax(logits_BL, dim=-1).mean(0).log().cpu()

    # --- scoring

    def encode(self, examples: Sequence[Example]) -> list[PromptIds]:
        """Render and tokenise, demonstrations in front."""
        return self.prompts.encode(examples, shots=self.demonstrations.before(examples))

    @contextmanager
    def scoring(self, inputs: Sequence[PromptIds]) -> Iterator[Sequence[PromptIds] | Sequence[PromptTree]]:
        """Run what all prompts begin with once, and give what follows it; what several of them share is run once too.

        What was run stays for the calls that follow: prompts that come one at a time have their demonstrations in
        common as well. Prompts that had to do without some demonstrations do not begin so and are run whole.
        """
        longest = max(map(len, inputs), default=0)
        grow = grow_trees if can_branch(self.model, longest) and self._is_exact("trees") else list
        shared = self._common_beginning(inputs) if can_share(self.model.config, longest) else []
        if len(shared) < SHORTEST_PREFIX or not self._is_exact("prefix"):
            yield grow(inputs)
        else:
            yield grow(self._put_in_front(shared, inputs))

    def _common_beginning(self, inputs: Sequence[PromptIds]) -> list[int]:
        """Return the ids that all prompts begin with; one alone, what was run before or the last one.

        Scores of several prompts depend on these alone, to the last bit, and not on what was asked before them.
        """
        most = max((item.shots for item in inputs), default=0)
        prompts = [item.input_ids[:-1] for item in inputs if item.shots == most]
        before, self._last_prompt = self._last_prompt, prompts[-1] if prompts else []
        if len(inputs) >= 2:
            return common_prefix(prompts)
        if self.prefix is not None and self._last_prompt[: len(self.prefix)] == self.prefix.ids:
            return self.prefix.ids
        return common_prefix([self._last_prompt, before])

    def _put_in_front(self, shared: list[int], inputs: Sequence[PromptIds]) -> list[PromptIds]:
        """Run a common beginning once, and return the prompts without it; those that begin otherwise stay whole."""
        cut = len(shared)
        if self.prefix is None or self.prefix.ids != shared:
            self.prefix = SharedPrefix(self.model, shared)
        return [
            replace(item, input_ids=item.input_ids[cut:], behind=cut) if item.input_ids[:cut] == shared else item
            for item in inputs
        ]

    def _is_exact(self, way: Way) -> bool:
        """Tell whether a model gives the scores of whole prompts this way too; some ignore the cache or the mask.

        Shown once on made-up prompts: two that begin alike, and one that goes another way behind the common prefix.
        """
        if way not in self._proven:
            prompts = self._made_up_prompts()

            def short() -> Tensor:
                shared = prompts[0].input_ids[:MADE_UP_TOKENS]
                found = self._put_in_front(shared, prompts) if way == "prefix" else grow_trees(prompts)
                order_B = send(torch.from_numpy(np.argsort(self.rows(found))), self.model.device)
                return self._label_logits(self.collate(found))[order_B]

            name = "shared prefix" if way == "prefix" else "token trees"
            try:
                self._proven[way] = prove(
                    name, lambda: self._label_logits(self.collate(prompts)), short, self._rounding()
                )
            finally:
                self.prefix = None
        return self._proven[way].proven

    def _made_up_prompts(self) -> list[PromptIds]:
        rng, words = np.random.default_rng(0), self.text_encoder.tokenizer.vocab_size
        start, middle, *ends = ([int(word) for word in rng.integers(words, size=MADE_UP_TOKENS)] for _ in range(5))
        *short, last = ((index,) for index in range(len(self.task.labels)))
        continuations = (*short, (*last, 0))  # a word of two tokens is read in two places
        rows = (start + middle + ends[0], start + middle + ends[1][:5], start + ends[2])
        return [PromptIds(row, ids, continuations, truncated=False) for row, ids in enumerate(rows)]

    def _rounding(self) -> tuple[float, float]:
        """Return which shares of the logits' spread and of their size are rounding in this model's arithmetic."""
        whole = self.model.dtype == torch.float32 and not getattr(self.model, "is_quantized", False)
        return (TOLERANCE, ROUNDING) if whole else (3e-2, 1e-2)

    def rows(self, inputs: Sequence[PromptIds | PromptTree]) -> list[int]:
        """Return the example of each row of logits; a tree has several."""
        return [row for item in inputs for row in _rows(item)]

    def collate(self, inputs: Sequence[PromptIds | PromptTree]) -> Any:
        """Return one batch of what stands behind the prefix and one of the rest, each with its rows of logits."""
        make: Callable[[Any], TokenBatch] = super().collate
        if isinstance(inputs[0], PromptTree):
            make = self._collate_trees
        starts = np.cumsum([0, *(len(_rows(item)) for item in inputs)])
        batches = []
        for behind in (True, False):
            members = [index for index, item in enumerate(inputs) if bool(item.behind) == behind]
            if members:
                rows = [row for index in members for row in range(starts[index], starts[index + 1])]
                batches.append((rows, make([inputs[index] for index in members]), behind))
        return batches

    def _collate_trees(self, trees: Sequence[PromptTree]) -> TokenBatch:
        """Pad to the largest tree; a padding token sees itself, so that its softmax is one of something."""
        device = self.model.device
        ids_BT = pad_ids([tree.token_ids for tree in trees], self.pad_id)
        seen_BTT = torch.eye(ids_BT.shape[1], dtype=torch.bool).repeat(len(trees), 1, 1)
        for row, tree in enumerate(trees):
            seen_BTT[row, : len(tree), : len(tree)] = torch.from_numpy(tree.seen())
        mask_B1TT = torch.zeros(seen_BTT.shape, dtype=self.model.dtype).masked_fill(~seen_BTT, float("-inf"))[:, None]
        return TokenBatch(
            send(ids_BT, device),
            send(mask_B1TT, device),
            None,
            torch.tensor([len(tree) for tree in trees]),
            plan_tree_reads(trees).on(device),
            send(pad_ids([tree.depths for tree in trees], 0), device),
        )

    def logits(self, batch: Any) -> Tensor:
        """Return logits_BL: log-probabilities of the label words, less the bias, over the temperature."""
        return (self._label_logits(batch) - send(self.bias_L, self.model.device)) / self.temperature

    def _label_logits(self, batch: Any) -> Tensor:
        logits_BL = torch.zeros(sum(len(rows) for rows, _, _ in batch), len(self.task.labels), device=self.model.device)
        for rows, part, behind in batch:
            inputs = {"input_ids": part.ids_BT, "attention_mask": part.mask_BT}
            if part.positions_BT is not None:
                inputs["position_ids"] = part.positions_BT
            with ExitStack() as stack:
                stack.enter_context(known_padding(part.padded))
                if behind:
                    assert self.prefix is not None
                    inputs = self.prefix.inputs_behind(part.ids_BT, part.mask_BT, part.positions_BT)
                    stack.enter_context(self.prefix.attending())
                part_BL = self.readout.logits(self.model, inputs, part, 0).float()
            if self.method.length_normalized:
                part_BL = part_BL / part.reads.counts_BL().to(part_BL.device)
            logits_BL.index_copy_(0, send(torch.tensor(rows), logits_BL.device), part_BL)
        return logits_BL

    # --- keeping

    def shift(self, shift_L: NDArray[np.float64]) -> None:
        """Take it off the bias, which is subtracted before the temperature divides."""
        self.bias_L = self.bias_L - self.temperature * torch.from_numpy(shift_L).float()

    def save(self, folder: Path) -> None:
        """Write demonstrations, bias and temperature; the model is as it was."""
        write_json(
            folder / STATE_FILE,
            {
                "demonstrations": self.demonstrations.document(),
                "bias": self.bias_L.tolist(),
                "temperature": self.temperature,
            },
        )

    def load(self, folder: Path) -> None:
        """Read them back."""
        saved = read_json(folder / STATE_FILE)
        bias_L, temperature = torch.tensor(saved["bias"]), float(saved["temperature"])
        if bias_L.shape != (len(self.task.labels),) or not 0 < temperature < 1e6:
            raise ValueError("one bias a label and a temperature above 0 were expected")
        self.bias_L, self.temperature = bias_L, temperature
        self.demonstrations.read(saved["demonstrations"])

    def parameter_counts(self) -> tuple[int, int, int]:
        """Nothing is trained, and no weights are stored."""
        return 0, 0, count_parameters(self.parameters())


def _rows(item: PromptIds | PromptTree) -> Sequence[int]:
    return item.rows if isinstance(item, PromptTree) else (item.example_index,)


def best_temperature(logits_EL: NDArray[np.float64], targets_E: NDArray[np.int64]) -> float:
    """Return the softmax temperature with the least log loss (Guo et al. 2017, section 4.2), between 0.05 and 20."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    def loss(log_temperature: float) -> float:
        scaled_EL = logits_EL / np.exp(log_temperature)
        gold_E = scaled_EL[np.arange(len(targets_E)), targets_E]
        return float((logsumexp(scaled_EL, axis=1) - gold_E).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))
