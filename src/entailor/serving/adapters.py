"""LoRA classifiers over one copy of their base model, in one batch whatever their labels.

The low-rank updates of a batch are added for each run of rows of one adapter, and each run goes through its own head
(as in Punica, Chen et al. 2023, section 4, there with a kernel for GPUs). Whether that gives what each classifier gives
by itself is tried with made-up rows when it is loaded.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from entailor.classifiers.transformer import PeftClassifier, TokenBatch
from entailor.data.example import Example
from entailor.engine.batching import BatchLimit, scoring_batches
from entailor.engine.scorer import log_softmax
from entailor.errors import DivergedError
from entailor.events import SILENT, Observer
from entailor.serving.batching import Job, Probabilities
from entailor.shipping.predictor import Scored

TOLERANCE = 1e-5
"""Most by which logits may differ from those of the classifier by itself, as a share of the largest."""


class NotSharedError(Exception):
    """A classifier cannot be run over a shared base; it is served by itself."""


class ProofFailedError(NotSharedError):
    """Over the shared base a classifier gives other scores than by itself."""


@dataclass(frozen=True)
class LowRank:
    """The update of one layer.

    Attributes:
        down_IR: A, I features to rank R.
        up_RO: B, times the scale.
    """

    down_IR: Tensor
    up_RO: Tensor


@dataclass(frozen=True, eq=False)
class Adapter:
    """What one classifier adds to the base; its memory is freed with the last one who holds it.

    Attributes:
        updates: by the path of the layer.
        heads: trained modules by their path.
        text_encoder: text to token ids.
        num_labels: L.
    """

    updates: dict[str, LowRank]
    heads: dict[str, nn.Module]
    text_encoder: Any
    num_labels: int


@dataclass(frozen=True)
class Runs:
    """Stretches that belong to one adapter each, one behind the other.

    Attributes:
        owners: of each stretch.
        sizes: how long it is.
    """

    owners: tuple[Adapter, ...]
    sizes: tuple[int, ...]


class Layout:
    """Whose the rows of the batch are that is being run; only inside :meth:`of`."""

    def __init__(self) -> None:
        self.rows = Runs((), ())
        self._by_count: dict[int, Runs] = {}
        self._count = 0

    @contextmanager
    def of(self, adapters: Sequence[Adapter], lengths: Sequence[int]) -> Iterator[None]:
        """Run what is inside the block on rows of these adapters.

        Args:
            adapters: of each row.
            lengths: real tokens of each row.
        """
        # without padding, the packed encoder lays texts end to end, shortest first, and ends with one state a text
        packed = sorted(range(len(lengths)), key=lengths.__getitem__)
        owners = [adapters[row] for row in packed]
        self._count = len(lengths)
        self.rows = _runs(adapters, [1] * len(lengths))
        self._by_count = {
            len(lengths): _runs(owners, [1] * len(lengths)),
            sum(lengths): _runs(owners, [lengths[row] for row in packed]),
        }
        try:
            yield
        finally:
            self.rows, self._by_count, self._count = Runs((), ()), {}, 0

    def tokens(self, states: Tensor) -> Runs:
        """Return whose the tokens are of (B, T, features), laid end to end, or of packed (N, features)."""
        padded = states.ndim > 2
        if (len(states) != self._count) if padded else (len(states) not in self._by_count):
            # deberta sends its relative positions, one for all rows, through layers that are adapted
            raise NotSharedError(f"a layer is given {tuple(states.shape)}, which is not one part for each row")
        if not padded:
            return self._by_count[len(states)]
        return Runs(self.rows.owners, tuple(rows * states.shape[1:-1].numel() for rows in self.rows.sizes))


def _runs(owners: Sequence[Adapter], sizes: Sequence[int]) -> Runs:
    """Return who owns which stretch."""
    groups = [list(group) for _, group in groupby(zip(owners, sizes, strict=True), key=lambda pair: id(pair[0]))]
    return Runs(tuple(group[0][0] for group in groups), tuple(sum(size for _, size in group) for group in groups))


class GroupedLinear(nn.Module):
    """A frozen linear layer with the update of each row's adapter.

    Args:
        layer: the frozen layer.
        path: of the layer in the model.
        layout: whose the rows are.
    """

    def __init__(self, layer: nn.Linear, path: str, layout: Layout) -> None:
        super().__init__()
        self.layer, self.path, self.layout = layer, path, layout

    def forward(self, states: Tensor) -> Tensor:
        """Return W x + b + B A x with the A and B of the row's adapter; (..., I) to (..., O)."""
        output: Tensor = self.layer(states)
        runs = self.layout.tokens(states)
        inputs, outputs = (one.reshape(-1, one.shape[-1]).split_with_sizes(runs.sizes) for one in (states, output))
        for adapter, input_NI, output_NO in zip(runs.owners, inputs, outputs, strict=True):
            if update := adapter.updates.get(self.path):
                output_NO.addmm_(input_NI @ update.down_IR, update.up_RO)
        return output


class GroupedHead(nn.Module):
    """A module that each adapter brings itself; outputs of fewer labels than the most are filled with zeros.

    Args:
        path: of the module in the model.
        layout: whose the rows are.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        super().__init__()
        self.path, self.layout = path, layout

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the outputs of all rows, (B, ..., widest)."""
        runs = self.layout.rows
        parts = [
            adapter.heads[self.path](own, *args, **kwargs)
            for adapter, own in zip(runs.owners, states.split_with_sizes(runs.sizes), strict=True)
        ]
        widest = max(part.shape[-1] for part in parts)
        return torch.cat([nn.functional.pad(part, (0, widest - part.shape[-1])) for part in parts])


class AdapterLane:
    """One base model and the adapters over it.

    Args:
        classifier: the first one; its model becomes the base, and it can no longer be used by itself.
        batch_tokens: most tokens of a batch, padding included.

    Raises:
        NotSharedError: it is no plain LoRA classifier with a head.
        ProofFailedError: it gives other scores; then the classifier is spoilt, and must be loaded again.
    """

    def __init__(self, classifier: Any, batch_tokens: int) -> None:
        expected_BL = _alone(classifier)
        model, adapter = take_apart(classifier)
        self.batch_tokens = batch_tokens
        self._lock = Lock()
        self._layout = Layout()
        self._model, self._base = model, dict(_base_tensors(model))
        self._wrap(adapter)
        for path in adapter.heads:
            model.set_submodule(path, GroupedHead(path, self._layout))
        self._heads = set(adapter.heads)
        self._text_encoder = adapter.text_encoder
        self._runner: PeftClassifier = classifier
        classifier.model = model
        batch = classifier.made_up_batch()
        classifier.shortcut.proven = None if classifier.shortcut.proven else False
        with torch.inference_mode(), self._layout.of([adapter] * len(batch.lengths_B), batch.lengths_B.tolist()):
            classifier.packs()
        self._prove(adapter, adapter, batch, expected_BL)
        self._latest = weakref.ref(adapter)
        self._first: Adapter | None = adapter

    def begin(self) -> Adapter:
        """Return the adapter of the first classifier, once."""
        first, self._first = self._first, None
        if first is None:
            raise ValueError("the first adapter was taken before")
        return first

    def add(self, classifier: Any) -> Adapter:
        """Return the adapter of another classifier, which is not needed any more.

        Raises:
            NotSharedError: its base is another one.
        """
        expected_BL = _alone(classifier)
        model, adapter = take_apart(classifier)
        theirs = dict(_base_tensors(model))
        if theirs.keys() != self._base.keys() or set(adapter.heads) != self._heads:
            raise NotSharedError("its base model has other parts")
        if any(not _same(tensor, self._base[name]) for name, tensor in theirs.items()):
            raise NotSharedError("its base model has other weights")
        ours, own = self._text_encoder, adapter.text_encoder
        if _tokenizer_text(own.tokenizer) == _tokenizer_text(ours.tokenizer):
            own.tokenizer = ours.tokenizer  # tens of megabytes each
            if _without_tokenizer(own) == _without_tokenizer(ours):
                adapter = replace(adapter, text_encoder=ours)  # texts of both are then encoded at once
        self._wrap(adapter)
        self._prove(adapter, self._latest() or adapter, classifier.made_up_batch(), expected_BL)
        self._latest = weakref.ref(adapter)
        return adapter

    def run(self, jobs: Sequence[Job]) -> list[Probabilities]:
        """Return probabilities_L of each job; `job.model` is its adapter."""
        inputs, owners = [], []
        kinds = [(id(job.model.text_encoder), job.example.text_pair is None) for job in jobs]
        for _, group in groupby(sorted(range(len(jobs)), key=kinds.__getitem__), key=kinds.__getitem__):
            members = list(group)
            for item in jobs[members[0]].model.text_encoder.encode([jobs[index].example for index in members]):
                inputs.append(replace(item, example_index=members[item.example_index]))
                owners.append(jobs[members[item.example_index]].model)
        sums = [np.zeros(job.model.num_labels) for job in jobs]
        windows = np.zeros(len(jobs))
        for indices in scoring_batches([len(item) for item in inputs], BatchLimit(tokens=self.batch_tokens)):
            batch = self._runner.collate([inputs[index] for index in indices])
            logits_BL = self._logits(batch, [owners[index] for index in indices]).double().cpu().numpy()
            for index, row in zip(indices, logits_BL, strict=True):
                job = inputs[index].example_index
                sums[job] += row[: len(sums[job])]
                windows[job] += 1
        if not all(np.isfinite(row).all() for row in sums):
            raise DivergedError("a score is not finite. Train again in fp32 (model.precision=fp32)")
        return [np.exp(log_softmax(row[None] / count)[0]) for row, count in zip(sums, windows, strict=True)]

    def _logits(self, batch: TokenBatch, owners: Sequence[Adapter]) -> Tensor:
        """Return logits_BL, as wide as the most labels of the batch."""
        with self._lock, torch.inference_mode(), self._layout.of(owners, batch.lengths_B.tolist()):
            return self._runner.logits(batch)

    def _wrap(self, adapter: Adapter) -> None:
        """Make room for an adapter's updates."""
        with self._lock:
            for path in adapter.updates:
                layer: Any = self._model.get_submodule(path)
                if not isinstance(layer, GroupedLinear):
                    plain = getattr(layer, "base_layer", layer)
                    self._model.set_submodule(path, GroupedLinear(plain, path, self._layout))

    def _prove(self, adapter: Adapter, other: Adapter, batch: TokenBatch, expected_BL: Tensor) -> None:
        """Score made-up rows, every second one with the other adapter.

        Raises:
            ProofFailedError: the logits are not those of the classifier by itself.
        """
        owners = [adapter if row % 2 else other for row in range(len(batch.lengths_B))]
        try:
            found_BL = self._logits(batch, owners)[:, : adapter.num_labels]
        except Exception as error:  # a model's own code can raise anything
            raise ProofFailedError(f"over the shared base it cannot be run: {error}") from error
        rows = [row for row, owner in enumerate(owners) if owner is adapter]
        if not torch.allclose(
            found_BL[rows], expected_BL[rows], rtol=0, atol=TOLERANCE * float(expected_BL.abs().max())
        ):
            raise ProofFailedError("over the shared base it gives other scores than by itself")


class AdapterScorer:
    """One classifier of a lane, for a `Predictor`.

    Args:
        lane: where it runs.
        adapter: what it adds.
    """

    def __init__(self, lane: AdapterLane, adapter: Adapter) -> None:
        self.lane, self.adapter = lane, adapter

    def score(self, examples: Sequence[Example], observer: Observer = SILENT) -> Scored:
        """Return probabilities."""
        rows = self.lane.run([Job(self.adapter, example) for example in examples])
        observer.stage("scoring", len(examples), len(examples))
        return Scored(np.array(rows))


def take_apart(classifier: Any) -> tuple[nn.Module, Adapter]:
    """Return the model inside, its layers still those of `peft`, and what the classifier adds to the base.

    Raises:
        NotSharedError: it is no plain LoRA classifier with a head.
    """
    from peft.tuners.lora import Linear
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if not isinstance(classifier, PeftClassifier) or not classifier.head_names or classifier.virtual_tokens:
        raise NotSharedError("only LoRA classifiers with a head share a base")
    if classifier.offset_L is not None:
        raise NotSharedError("its thresholds stand beside its weights")
    model = classifier.model.base_model.model
    updates, heads = {}, {}
    for path, module in _outer_modules(model):
        if isinstance(module, ModulesToSaveWrapper):
            heads[path] = module.modules_to_save[module.active_adapters[0]]
        elif type(module) is Linear and _is_plain(module):
            updates[path] = _update(module)
        elif isinstance(module, BaseTunerLayer):
            raise NotSharedError("only plain LoRA in fp32 shares a base")
    if not heads:
        raise NotSharedError("it has no head of its own")
    return model, Adapter(updates, heads, classifier.text_encoder, len(classifier.task.labels))


def _is_plain(module: Any) -> bool:
    """Tell whether a layer of `peft` is W x + b + s B A x in fp32 and no more."""
    if len(module.active_adapters) != 1 or module.merged or module.disable_adapters or module.fan_in_fan_out:
        return False
    (name,) = module.active_adapters
    parts = (module.base_layer, module.lora_A[name], module.lora_B[name])
    fp32 = all(type(part) is nn.Linear and part.weight.dtype == torch.float32 for part in parts)
    return fp32 and name not in module.lora_variant and not module.lora_bias[name]


def _update(module: Any) -> LowRank:
    (name,) = module.active_adapters
    up_OR = module.lora_B[name].weight.detach() * module.scaling[name]
    return LowRank(module.lora_A[name].weight.detach().clone().T, up_OR.T)


def _outer_modules(model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Give every module by its path, and nothing inside what `peft` or this file put around a layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    yield path, model
    if not isinstance(model, (BaseTunerLayer, ModulesToSaveWrapper, GroupedLinear, GroupedHead)):
        for name, child in model.named_children():
            yield from _outer_modules(child, f"{path}.{name}" if path else name)


def _base_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give the base's own tensors by name, without adapters and heads."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for path, module in _outer_modules(model):
        if isinstance(module, ModulesToSaveWrapper):
            continue
        inner = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        for name, tensor in (*inner.named_parameters(recurse=False), *inner.named_buffers(recurse=False)):
            yield f"{path}.{name}", tensor


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool(torch.equal(one, other))


def _alone(classifier: Any) -> Tensor:
    """Return the logits that a classifier gives by itself to made-up rows.

    Raises:
        NotSharedError: it takes no tokens.
    """
    if not isinstance(classifier, PeftClassifier):
        raise NotSharedError("only LoRA classifiers with a head share a base")
    classifier.eval()
    with torch.inference_mode():
        return classifier.logits(classifier.made_up_batch())


def _tokenizer_text(tokenizer: Any) -> tuple[str, Any]:
    return tokenizer.backend_tokenizer.to_str(), tokenizer.special_tokens_map


def _without_tokenizer(text_encoder: Any) -> tuple[type, dict[str, Any]]:
    settings = {name: value for name, value in vars(text_encoder).items() if name not in ("tokenizer", "_identity")}
    return type(text_encoder), settings
