"""What a search runs: a training or a prompt that is tried on validation, of which only the figures stay."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from entailor.data.example import Split
from entailor.engine.stopping import UNATTENDED, RunContext
from entailor.engine.training import TrainingResult
from entailor.runs.record import CurvePoint
from entailor.study.finished import accuracy_and_loss
from entailor.study.trial import Trial
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task


def train_only(
    plan: TrialPlan,
    task: Task,
    split: Split,
    folder: Path,
    is_enough: Callable[[CurvePoint, int], bool],
    run_context: RunContext = UNATTENDED,
) -> TrainingResult:
    """Adapt and train once, without restarts, and save nothing but checkpoints: how settings are tried.

    A training that was broken off goes on from its last checkpoint; `is_enough` is then first asked again about the
    evaluations before it, so that it comes to the same state.

    Args:
        plan: what to try.
        task: labels and input shape.
        split: train and validation; its test is not looked at, and may be empty.
        folder: where its checkpoints are kept; they stay until the caller calls :func:`discard_leftovers`.
        is_enough: asked after each evaluation of validation, with the training examples seen so far; True stops
            training.
        run_context: as for :func:`run_trial`.
    """
    blind = replace(split, test=())
    trial = Trial(plan, replace(task, prompt=plan.prompt), blind, folder, run_context)
    trial.is_enough = is_enough
    with trial.together("training"):
        trial.learn()
    return trial.training


def ask_validation(
    plan: TrialPlan, task: Task, split: Split, folder: Path, run_context: RunContext = UNATTENDED
) -> TrainingResult:
    """Adapt a classifier that is not trained and score validation: how prompts are tried. As :func:`train_only`."""
    begin = time.perf_counter()
    trial = Trial(plan, replace(task, prompt=plan.prompt), replace(split, test=()), folder, run_context)
    with trial.together("validation"):
        logprobs_EL = trial.score_validation(trial.learn())
    accuracy, loss = accuracy_and_loss(logprobs_EL, np.array(task.targets(split.validation)))
    seconds, seen = time.perf_counter() - begin, len(split.validation)
    return TrainingResult(best_accuracy=accuracy, best_loss=loss, evaluate_seconds=seconds, examples_seen=seen)
