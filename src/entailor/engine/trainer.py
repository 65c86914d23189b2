"""The one training loop.

What it must not let pass silently: a tensor that learns nothing, a loss that is not a number, predictions that
collapse to one class.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from entailor.accel.allocator import keep_freed_memory
from entailor.accel.half_linear import frozen_in_half
from entailor.classifiers.base import Classifier
from entailor.engine.batching import BatchLimit, part_limit, parts_of, training_batches
from entailor.engine.choosing import figure_of_choice, merit, weights_of_labels
from entailor.engine.memory import is_out_of_memory
from entailor.engine.optimizer import build_optimizer, build_schedule, decay_of, skips_when_told, with_rows
from entailor.engine.scorer import score
from entailor.engine.stopping import Stopped
from entailor.engine.training import LoopRuntime, TrainingData, TrainingResult, seed_everything
from entailor.engine.training_state import capture, restore
from entailor.errors import DivergedError, TrainingError
from entailor.events import Event
from entailor.methods.base import TrainedMethod
from entailor.models.device import free_cached_memory, random_states, send, set_random_states
from entailor.models.sharded import any_not_zero, is_divided, own_part, whole
from entailor.runs.record import CurvePoint

# Share of one label among predictions from which they count as collapsed, where gold labels are not like that.
COLLAPSE_SHARE = 0.98
# Steps within which a gradient must have reached every trainable tensor: LoRA's A gets none before B has left zero.
# Whether a tensor moved would say less: weight decay moves it too, and the first rates of a long warm-up are smaller
# than what fp32 can add to the gain of a norm.
GRADIENT_STEPS = 4


def train(classifier: Classifier, method: TrainedMethod, data: TrainingData, runtime: LoopRuntime) -> TrainingResult:
    """Train in place and leave the best weights, by the validation split, in the classifier.

    Args:
        classifier: made by `method.adapt`; must be a torch module.
        method: hyperparameters and parameter groups.
        data: encoded train and validation splits.
        runtime: seed, precision, progress.

    Raises:
        DivergedError: the loss, the gradient or a score is not finite; the classifier holds the last good weights.
        TrainingError: a split is empty, no gradient reaches a trainable tensor, or one example alone needs more
            memory than there is.
        Stopped: somebody asked for it; a checkpoint is written.
    """
    return Training(classifier, method, data, runtime).run()


class Training:
    """State of one training; each method is one stage of a step."""

    def __init__(self, classifier: Classifier, method: TrainedMethod, data: TrainingData, runtime: LoopRuntime) -> None:
        if not isinstance(classifier, nn.Module):
            raise TrainingError(f"{method.name}: its classifier is not a torch module")
        for part, inputs in (("training", data.train), ("validation", data.validation)):
            if not inputs:
                raise TrainingError(f"{method.name}: the {part} split is empty")
        if classifier.tokens_together is not None:
            raise TrainingError(
                f"{method.name}: model.stream reads one layer at a time, and training needs them all. Set "
                "model.stream=false; load_in_4bit=true alone trains in 4 bits"
            )
        self.classifier, self.module = classifier, classifier
        self.method, self.data, self.runtime = method, data, runtime
        self.ranks, self.divided = runtime.ranks, is_divided(classifier)
        seed_everything(runtime.seed)
        self.rng = np.random.default_rng(runtime.seed)
        self.limit = BatchLimit(
            examples=None if method.max_batch_tokens else method.per_device_train_batch_size,
            tokens=method.max_batch_tokens,
        )
        self.lengths = [len(item) for item in data.train]
        # a token budget gives a few batches more or less each epoch; the schedule needs one number for all
        batches = len(self._epoch_batches(np.random.default_rng(runtime.seed)))
        self.steps_per_epoch = math.ceil(batches / method.gradient_accumulation_steps)
        self.total_steps = max(1, math.ceil(self.steps_per_epoch * method.num_train_epochs))
        groups = method.parameter_groups(classifier)
        self.rows = classifier.rows_to_train(data.train)
        if self.rows is not None:
            groups = with_rows(groups, self.rows)
        self.trainable = [tensor for group in groups for tensor in group.parameters]
        self.ranks.copy_first(self.trainable)
        keep_freed_memory(self.trainable)
        self.optimizer = build_optimizer(groups)
        self.schedule = build_schedule(self.optimizer, method, self.total_steps)
        self.device = self.trainable[0].device
        # a GPU is asked for values once a logging interval; until then it leaves out what follows a broken step
        self.reads_each_step = self.divided or not skips_when_told(self.device)
        if not self.reads_each_step:
            self.optimizer.found_inf = torch.zeros((), device=self.device)  # type: ignore[attr-defined]
        self.reached = torch.zeros(len(self.trainable), dtype=torch.bool, device=self.device)
        self.best: list[Tensor] = []
        self.result = TrainingResult()
        self.weight_L: Tensor | None = None
        if method.class_weight == "balanced":
            weight_L = weights_of_labels(data.train_targets, len(classifier.task.labels))
            self.weight_L = torch.from_numpy(weight_L).to(self.device)
        self.step = 0
        self.learning_rate = 0.0
        self.stale_evaluations = 0
        self.told_to_stop = False
        self.window: list[tuple[Tensor, Tensor]] = []
        self.evaluated_at = -1
        self.groups_done = 0
        self.epoch_random: Mapping[str, Any] = {}
        self.most_examples: int | None = None
        self.at_once = 0

    def run(self) -> TrainingResult:
        """Train from the beginning, or from the checkpoint that was handed over."""
        saving = self.runtime.saving
        with ExitStack() as ending:
            if self.rows is not None:
                ending.callback(self.rows.finish)
            if self.method.gradient_checkpointing:
                self._checkpoint_activations()
            if self.runtime.autocast is torch.bfloat16 and self.device.type == "cpu" and not self.divided:
                ending.enter_context(frozen_in_half(self.module))
            if saving and saving.resume_from:
                restore(self, saving.resume_from)
                self._tell_again()
            with saving.stop.held() if saving and saving.stop else nullcontext():
                self._all_epochs()
                if saving and self._told()[0]:  # during the last evaluation
                    self._save()
            self._keep_best()
        self.result.epochs = self.step / self.steps_per_epoch
        return self.result

    def _tell_again(self) -> None:
        """Tell of the curve before a checkpoint, and so learn again whether its last evaluation was to stop."""
        if self.runtime.on_point:
            for point in self.result.curve:
                self.runtime.on_point(point)
        if self.runtime.is_enough:
            points = [point for point in self.result.curve if point.validation_accuracy is not None]
            for point, seen in zip(points, self.result.evaluated_after, strict=True):
                self.told_to_stop = self._is_enough(point, seen)

    def _is_enough(self, point: CurvePoint, seen: int) -> bool:
        assert self.runtime.is_enough is not None
        return self.ranks.from_first(partial(self.runtime.is_enough, point, seen))

    def _all_epochs(self) -> None:
        while self.step < self.total_steps and not self._stopped_early():
            for group in self._accumulation_groups()[self.groups_done :]:
                begin = time.perf_counter()
                self._optimizer_step(group)
                self.result.train_seconds += time.perf_counter() - begin
                self.groups_done += 1
                self._after_step()
                self._save()
                if self.step >= self.total_steps or self._stopped_early():
                    break
            self.groups_done = 0
            if self.method.eval_strategy == "epoch" and self.evaluated_at != self.step:
                self._evaluate()
        if self.evaluated_at != self.step and not self._stopped_early():
            self._evaluate()

    def _save(self) -> None:
        """Write a checkpoint where one is due or the process shall end, and end it there."""
        saving = self.runtime.saving
        if saving is None:
            return
        asked, due = self._told()
        if asked or due:
            self._read_window()  # no checkpoint of a training that is broken
            written = saving.write(self.step, *capture(self))
            if asked:
                kept = "a checkpoint is written" if written else "no checkpoint could be written"
                raise Stopped(asked, f"step {self.step} of {self.total_steps}, {kept}")

    def _told(self) -> tuple[int, ...]:
        """Return the signal that asks to stop, or 0, and whether a checkpoint is due; the same in every process."""
        saving = self.runtime.saving
        assert saving is not None
        return self.ranks.largest((saving.stop and saving.stop.signum) or 0, int(saving.is_due(self.step)))

    def _checkpoint_activations(self) -> None:
        """Re-entrant checkpointing cuts adapters off when nothing before them needs a gradient; this kind does not."""
        model = getattr(self.module, "model", None)
        # the second is what transformers called it before 5.20
        enable = getattr(model, "activation_checkpointing_enable", None) or getattr(
            model, "gradient_checkpointing_enable", None
        )
        try:
            if enable is None:
                raise ValueError("it is no transformers model")
            enable({"use_reentrant": False})
        except ValueError as error:
            raise TrainingError(
                f"{self.method.name}: no gradient checkpointing with this model ({error}). "
                "Set gradient_checkpointing=false"
            ) from None

    def _epoch_batches(self, rng: np.random.Generator) -> list[list[int]]:
        return training_batches(self.lengths, self.limit, rng, by_length=self.method.group_by_length)

    def _accumulation_groups(self) -> list[list[list[int]]]:
        self.epoch_random = dict(self.rng.bit_generator.state)
        batches = self._epoch_batches(self.rng)
        size = self.method.gradient_accumulation_steps
        return [batches[start : start + size] for start in range(0, len(batches), size)]

    def _optimizer_step(self, group: list[list[int]]) -> None:
        """Average the gradient over all examples of the group, whatever the sizes of its batches; clip; step."""
        self.module.train()
        count = sum(len(batch) for batch in group)
        self.ranks.seed_step(self.runtime.seed, self.step)
        total = self.ranks.sum_gradients(self.trainable, self._gradient(group, count))
        if self.step < GRADIENT_STEPS:
            self._check_gradients()
        norm = whole(nn.utils.clip_grad_norm_(self.trainable, self.method.max_grad_norm).detach())
        if self.reads_each_step:
            self._check_finite(self.step + 1, float(total), float(norm))
        else:
            broken = ~(torch.isfinite(total) & torch.isfinite(norm))
            self.optimizer.found_inf.logical_or_(broken)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.window.append((total, norm))
        self.result.examples_seen += count

    def _gradient(self, group: list[list[int]], count: int) -> Tensor:
        """Return the mean loss with its gradient in place; where memory does not suffice, in smaller parts.

        Halving changes neither the examples of a step nor their weights, so the gradient is the same mean.
        """
        while True:
            before = random_states()
            try:
                return self._backward(group, count)
            except (RuntimeError, MemoryError) as error:
                if self.divided or not is_out_of_memory(error):  # the other processes would not try again
                    raise
            self.optimizer.zero_grad(set_to_none=True)
            free_cached_memory()
            set_random_states(before)
            self._halve(self.at_once)

    def _backward(self, group: list[list[int]], count: int) -> Tensor:
        total = torch.zeros((), device=self.device)
        parts = self._parts(group, self.ranks.rank)
        if self.divided:  # then all processes go through the model equally often, with an example that weighs nothing
            most = max(len(self._parts(group, rank)) for rank in range(self.ranks.size))
            parts += [()] * (most - len(parts))
        for part in parts:
            self.at_once = len(part)
            loss = self._loss(part or group[0][:1]) * (len(part) / count)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach().to(self.device)
        return total

    def _parts(self, group: list[list[int]], rank: int) -> list[Sequence[int]]:
        """Return what of the share of a process goes through the model at once."""
        limit = part_limit(self.device.type, self.most_examples)
        shares = filter(None, (batch[rank :: self.ranks.size] for batch in group))
        return [part for own in shares for part in parts_of(own, self.lengths, limit, padded=self.classifier.pads)]

    def _halve(self, tried: int) -> None:
        if tried == 1:
            raise TrainingError(
                f"step {self.step + 1}: out of memory with one example at a time. Lower model.max_length, set "
                "gradient_checkpointing=true, or take a smaller model or a method that trains less"
            )
        self.most_examples = (tried + 1) // 2
        text = (
            f"step {self.step + 1}: out of memory with {tried} examples at a time; from here on {self.most_examples}, "
            "the gradient still averaged over the same examples"
        )
        self.result.events.append(Event("smaller_parts", text=text))

    def _read_window(self) -> tuple[Tensor, Tensor]:
        """Return losses and gradient norms since the last logged point, on the CPU: the one wait for the device.

        Raises:
            DivergedError: one of them is not finite; the weights are those before that step.
        """
        begin = time.perf_counter()
        both = torch.stack([torch.stack(pair) for pair in self.window]).cpu() if self.window else torch.zeros(0, 2)
        self.result.train_seconds += time.perf_counter() - begin
        first = self.step - len(self.window)
        for place, (loss, norm) in enumerate(both.tolist()):
            self._check_finite(first + place + 1, loss, norm)
        losses, norms = both.unbind(1)
        return losses, norms

    def _check_finite(self, step: int, loss: float, norm: float) -> None:
        if not math.isfinite(loss) or not math.isfinite(norm):
            self.step = step - 1
            raise self._diverged(f"step {step}: loss {loss:g}, gradient norm {norm:g}. {self._remedy()}")

    def _diverged(self, problem: str) -> DivergedError:
        """Put the best weights so far into the classifier, or leave those before this step; both are good."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.best:
            self._keep_best()
            return DivergedError(problem, f"the best weights so far, of step {self.result.best_step}")
        self.module.eval()
        self._decay_rows(self.step)
        finite = all(bool(torch.isfinite(own_part(tensor)).all()) for tensor in self.trainable)
        return DivergedError(problem, f"the weights after step {self.step}" if finite else None)

    def _remedy(self) -> str:
        return (
            f"Lower learning_rate (now {self.method.learning_rate:g}), lengthen warmup_ratio, or set "
            "model.precision=fp32"
        )

    def _loss(self, batch: Sequence[int]) -> Tensor:
        members = [self.data.train[index] for index in batch]
        rows = [item.example_index for item in members]
        gold_B = targets = torch.from_numpy(self.data.train_targets[rows])
        if self.data.soft_targets_EL is not None:
            targets = torch.from_numpy(self.data.soft_targets_EL[rows]).float()
        with torch.autocast(self.device.type, dtype=self.runtime.autocast, enabled=self.runtime.autocast is not None):
            logits_BL: Any = self.classifier.logits(self.classifier.collate(members))
        targets = send(targets, logits_BL.device)
        smoothing = self.method.label_smoothing_factor
        if self.weight_L is None:
            return nn.functional.cross_entropy(logits_BL, targets, label_smoothing=smoothing)
        # the mean over examples, so that a batch in parts has the gradient of the whole
        loss_B = nn.functional.cross_entropy(logits_BL, targets, label_smoothing=smoothing, reduction="none")
        return (loss_B * self.weight_L[send(gold_B, logits_BL.device)]).mean()

    def _named_trainable(self) -> list[str]:
        names = {id(tensor): name for name, tensor in self.module.named_parameters()}
        if self.rows is not None:
            names[id(self.rows.rows_UH)] = names[id(self.rows.embedding.weight)]
        return [names.get(id(tensor), "?") for tensor in self.trainable]

    def _check_gradients(self) -> None:
        """Stop with the names of tensors that have no gradient, or none but zero in the first steps."""
        gradients = [tensor.grad for tensor in self.trainable]
        cut_off = [gradient is None for gradient in gradients]
        if not any(cut_off):
            self.reached |= any_not_zero(gradients)
            if self.step + 1 == GRADIENT_STEPS:  # the one time that the host waits for this
                cut_off = [not reached for reached in self.reached.tolist()]
        names = [name for name, cut in zip(self._named_trainable(), cut_off, strict=True) if cut]
        if names:
            raise TrainingError(
                f"{self.method.name}: {len(names)} trainable tensors get no gradient: {', '.join(names[:5])}. "
                "They are cut off from the loss; training them would change nothing"
            )

    def _after_step(self) -> None:
        if self.step % self.method.logging_steps == 0 or self.step == self.total_steps:
            self._log()
        if self.method.eval_strategy == "steps" and self.step % self.method.eval_steps == 0:
            self._evaluate()
        self.runtime.observer.stage("train", self.step, self.total_steps, self._words())

    def _words(self) -> str:
        losses = [point.train_loss for point in self.result.curve if point.train_loss is not None]
        loss = f"loss {losses[-1]:.3f}" if losses else ""
        tuned = f", validation {self.result.best_accuracy:.1%}" if self.result.best_step else ""
        return f"{loss}{tuned}"

    def _log(self) -> None:
        if not self.window:
            return
        losses, norms = self._read_window()
        self.window = []
        self._add(
            CurvePoint(
                step=self.step,
                epoch=self.step / self.steps_per_epoch,
                train_loss=float(losses.mean()),
                learning_rate=self.learning_rate,
                gradient_norm=float(norms.mean()),
            )
        )

    def _add(self, point: CurvePoint) -> None:
        self.result.curve.append(point)
        if self.runtime.on_point:
            self.runtime.on_point(point)

    def _evaluate(self) -> None:
        self._log()
        begin = time.perf_counter()
        self._decay_rows(self.step)
        try:
            limit = self.runtime.scoring_batch_tokens
            logprobs_EL = score(self.classifier, self.data.validation, limit, ranks=self.ranks)
        except DivergedError:
            raise self._diverged(f"step {self.step}: a score of validation is not finite. {self._remedy()}") from None
        self.result.evaluate_seconds += time.perf_counter() - begin
        gold_E = self.data.validation_targets
        loss = float(-logprobs_EL[np.arange(len(gold_E)), gold_E].mean())
        predicted_E = logprobs_EL.argmax(axis=1)
        accuracy = float((predicted_E == gold_E).mean())
        self.evaluated_at = self.step
        epoch = self.step / self.steps_per_epoch
        figure = figure_of_choice(self.method, predicted_E, gold_E, self.classifier.task.labels)
        self._add(
            CurvePoint(self.step, epoch, validation_loss=loss, validation_accuracy=accuracy, validation_figure=figure)
        )
        self.result.evaluated_after.append(self.result.examples_seen)
        collapsed = is_collapsed(predicted_E, gold_E)
        if collapsed:
            label = self.classifier.task.labels[int(np.bincount(predicted_E).argmax())]
            text = f"collapse: after epoch {epoch:.2f} nearly all of validation is predicted {label!r}"
            self.result.events.append(Event("collapse", text=text))
        if self._is_better(accuracy, loss, figure):
            self.best = [tensor.detach().clone() for tensor in self.trainable]
            self.result.best_step, self.result.collapsed = self.step, collapsed
            self.result.best_accuracy, self.result.best_loss, self.result.best_figure = accuracy, loss, figure
            self.stale_evaluations = 0
        else:
            self.stale_evaluations += 1
        if self.runtime.is_enough:
            self.told_to_stop = self._is_enough(self.result.curve[-1], self.result.examples_seen)

    def _decay_rows(self, step: int) -> None:
        """Say how much weight decay has left, after a step, of the embedding rows that never occur."""
        if self.rows is not None:
            self.rows.decay = decay_of(self.rows.rows_UH, self.schedule, step)

    def _is_better(self, accuracy: float, loss: float, figure: float | None) -> bool:
        metric, best = self.method.metric_for_best_model, self.result
        return not self.best or merit(metric, accuracy, loss, figure) > merit(
            metric, best.best_accuracy, best.best_loss, best.best_figure
        )

    def _stopped_early(self) -> bool:
        patience = self.method.early_stopping_patience
        return self.told_to_stop or (patience is not None and self.stale_evaluations >= patience)

    def _keep_best(self) -> None:
        with torch.no_grad():
            for tensor, best in zip(self.trainable, self.best, strict=True):
                tensor.copy_(best)
        self._decay_rows(self.result.best_step or 0)
        self.module.eval()
        if self._stopped_early() and self.step < self.total_steps:
            text = f"stopped early at step {self.step} of {self.total_steps}"
            self.result.events.append(Event("early_stop", text=text))


def is_collapsed(predicted_E: NDArray[np.int64], gold_E: NDArray[np.int64]) -> bool:
    """Tell whether nearly every prediction is one class where the gold labels are not like that."""
    predicted_share = np.bincount(predicted_E).max() / len(predicted_E)
    gold_share = np.bincount(gold_E).max() / len(gold_E)
    return bool(predicted_share >= COLLAPSE_SHARE and gold_share < COLLAPSE_SHARE - 0.05)
