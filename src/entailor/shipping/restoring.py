"""The way back from a finished trial's folder to a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from safetensors import SafetensorError

from entailor.config.experiment import parse_settings
from entailor.config.parts import ModelSettings, PromptSettings
from entailor.errors import ConfigError, RunError, VersionError
from entailor.methods import Classifier, Method, build_method
from entailor.models.precision import PrecisionChoice
from entailor.models.resolve.source import ModelFolder, resolve_model
from entailor.runs.documents import well_formed
from entailor.runs.environment import loaded_torch
from entailor.runs.files import read_checked_json, read_json
from entailor.runs.layout import RunFolder
from entailor.runs.ownership import is_run_folder
from entailor.runs.record import MOST_LABELS, CandidateName, SeedNumber, check_trial_files, read_status
from entailor.runs.trial_folder import RECORD_FILE, RUN_AGAIN
from entailor.tasks import Task

if TYPE_CHECKING:
    from entailor.models.load import Backbone, Objective

CLASSIFIER_FILE = "classifier.json"
CLASSIFIER_VERSION: Literal[2] = 2
FP32 = PrecisionChoice("fp32", "scores are computed in fp32")


class SavedClassifier(BaseModel):
    """The content of classifier.json: what a classifier is, but for what it learnt."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    version: Literal[2]
    method: str
    hyperparameters: dict[str, Any]
    candidate: CandidateName
    model: str
    model_settings: dict[str, Any]
    weights_sha256: str | None
    model_files: dict[str, str] | None = None
    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] | None = None
    seed: SeedNumber
    labels: Annotated[list[str], Field(min_length=1, max_length=MOST_LABELS)]
    is_pair: bool
    prompt: dict[str, Any]
    scoring_batch_tokens: Annotated[int, Field(ge=1, lt=1 << 63)]
    offsets: list[FiniteFloat] | None = None

    def as_written(self) -> Mapping[str, Any]:
        """Return it as the file holds it."""
        return self.model_dump(mode="json", exclude={"offsets"} if self.offsets is None else None)

    @model_validator(mode="after")
    def _one_offset_a_label(self) -> SavedClassifier:
        if self.offsets is not None and len(self.offsets) != len(self.labels):
            raise ValueError(f"offsets: one a label was expected ({len(self.labels)}), found {len(self.offsets)}")
        return self


def read_saved(trial: Path) -> SavedClassifier:
    """Return the content of a trial's classifier.json.

    Raises:
        RunError: it is missing, damaged or of another version.
    """
    path = trial / CLASSIFIER_FILE
    saved = read_json(path)
    if isinstance(saved, dict) and isinstance(version := saved.get("version"), int) and version != CLASSIFIER_VERSION:
        raise VersionError(path, version, CLASSIFIER_VERSION)
    with well_formed(RunError, path, RUN_AGAIN):
        return SavedClassifier.model_validate(saved)


def find_trial(run: str | Path) -> Path:
    """Return a trial's folder; of a whole run, that of the recommended candidate, or of the only one.

    Raises:
        RunError: neither a complete trial nor a run with a recommended candidate.
    """
    folder = Path(run)
    if not (folder / CLASSIFIER_FILE).exists():
        whole = RunFolder(folder)
        whole.check_version()
        if not whole.comparison_file.exists():
            if is_run_folder(folder):
                raise RunError(f"{folder}: a run that was not finished. Run the command that made it again")
            raise RunError(
                f"{folder}: neither a trial (runs/NAME/trials/MODEL/METHOD/seed-N) nor a run. "
                "Give the folder that `entailor compare` or `entailor train` named"
            )
        comparison = read_checked_json(whole.comparison_file, "Run the command that made it again")
        with well_formed(RunError, whole.comparison_file, "Run the command that made it again"):
            winner = whole.winner(comparison) or whole.only_trial(comparison)
            outcome = (comparison.get("recommendation") or {}).get("outcome")
        if winner is None and comparison.get("candidates"):
            beaten = outcome == "none_beats_majority"
            why = "beats the majority baseline" if beaten else "keeps within the limits of `recommend`"
            other = "more training or test examples" if beaten else "other limits"
            raise RunError(
                f"{folder}: no candidate {why}, so none is recommended. Give a trial's folder (under "
                f"{folder / 'trials'}), or run `entailor compare` again with {other} and another --out"
            )
        if winner is None:
            raise RunError(f"{folder}: no trial of this run is complete, so there is no winner to load")
        folder = winner
    if not (folder / CLASSIFIER_FILE).exists():
        raise RunError(
            f"{folder}: its saved classifier is gone. Delete the folder and run the command that made it again"
        )
    if not (folder / RECORD_FILE).exists() or read_status(folder) != "complete":
        raise RunError(f"{folder}: this trial was not finished, or failed. Run the command that made it again")
    return folder


def learned_folder(method: Method) -> str:
    """Return the name of the folder a method's classifier is saved in."""
    return "model" if method.stores_whole_model else "adapter"


class BaseWeights(Enum):
    """Which weights a base model gets that was quantised for training.

    Attributes:
        AS_TRAINED: in its 4 or 8 bits.
        UNPACKED: plain layers, with the rounded weights.
        ORIGINAL: plain layers, with the weights of its files.
    """

    AS_TRAINED = auto()
    UNPACKED = auto()
    ORIGINAL = auto()


def load_classifier(
    trial: str | Path, *, weights: BaseWeights = BaseWeights.AS_TRAINED, trust_remote_code: bool = False
) -> Classifier:
    """Load a finished trial's classifier, in evaluation mode.

    Args:
        trial: the folder ``runs/NAME/trials/MODEL/METHOD/seed-N``.
        weights: of a base model that was quantised for training.
        trust_remote_code: run code that comes with its checkpoint, where it was trained so. A run folder may come from
            a stranger, so what stands in it does not decide this.

    Raises:
        RunError: not a trial's folder, a damaged one, or the base model is no longer the one it was trained on.
    """
    folder = Path(trial)
    if (folder / RECORD_FILE).exists():
        check_trial_files(folder, (CLASSIFIER_FILE, "adapter", "model"))
    saved = read_saved(folder)
    model, digest, seed = saved.model, saved.weights_sha256, saved.seed
    try:
        prompt = parse_settings(PromptSettings, saved.prompt, where="prompt")
        day = date.fromisoformat(saved.date) if saved.date else date.today()
        task = Task(tuple(saved.labels), saved.is_pair, prompt, day=day)
        settings = parse_settings(ModelSettings, saved.model_settings, where="model")
        method = build_method(saved.method, saved.hyperparameters)
    except (ConfigError, ValueError) as error:
        raise RunError(f"{folder / CLASSIFIER_FILE}: {error}. {RUN_AGAIN}") from None
    if settings.trust_remote_code and not trust_remote_code:
        raise RunError(
            f"{folder}: trained with code that comes with {model}, which is run only when asked for by name. If you "
            "trust it, add --trust-remote-code (in Python trust_remote_code=True)"
        )
    backbone = None
    if method.needs_backbone:
        from entailor.models.load import open_model
    if method.stores_whole_model:
        source = resolve_model(str(folder / "model"), remote_code=settings.trust_remote_code)
        settings = settings.model_copy(update={"head": "checkpoint"})
    elif method.needs_backbone:
        source = open_model(model, settings, hash_again=True)
        if source.weights_sha256 != digest:
            raise RunError(
                f"{folder}: trained on {model} with weights {str(digest)[:12]}..., but {source.path} now holds "
                f"{source.weights_sha256[:12]}.... Give back the same checkpoint or train again"
            )
        _check_other_files(folder, source, saved.model_files or source.files_sha256)
    if method.needs_backbone:
        backbone = _backbone(source, task, settings, seed, method.objective, weights)
    classifier = method.adapt(backbone, task, seed)
    learned = folder / learned_folder(method)
    try:
        with well_formed(RunError, learned, f"Delete {folder} and run the trial again"):
            classifier.load(learned)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{learned}: cannot be loaded ({error}). Delete {folder} and run the trial again") from None
    if saved.offsets is not None:
        classifier.offset_L = np.array(saved.offsets)
    if (torch := loaded_torch()) and isinstance(classifier, torch.nn.Module):
        classifier.eval()
    return classifier


def _backbone(
    source: ModelFolder, task: Task, settings: ModelSettings, seed: int, objective: Objective, weights: BaseWeights
) -> Backbone:
    from entailor.models.load import load_backbone
    from entailor.models.quantization import copy_rounded_weights

    if weights is BaseWeights.AS_TRAINED or not settings.quantized:
        return load_backbone(source, task, settings, FP32, seed, objective)
    settings = settings.model_copy(update={"stream": False})
    plain = settings.model_copy(update={"load_in_4bit": False, "load_in_8bit": False})
    backbone = load_backbone(source, task, plain, FP32, seed, objective)
    if weights is BaseWeights.UNPACKED:
        copy_rounded_weights(load_backbone(source, task, settings, FP32, seed, objective).model, backbone.model)
    return backbone


def _check_other_files(trial: Path, source: ModelFolder, recorded: Mapping[str, str]) -> None:
    """Hold configuration, tokenizer and code of a base model against those of the training.

    Raises:
        RunError: one of them is another file now.
    """
    now = source.files_sha256
    odd = sorted(name for name in {*recorded, *now} if recorded.get(name) != now.get(name))
    if odd:
        raise RunError(
            f"{trial}: trained on {source.name} with another {odd[0]} than {source.path} holds now. "
            "Give back the same checkpoint or train again"
        )
