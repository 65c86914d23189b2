"""The way back from a finished trial's folder to a classifier."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import torch
from safetensors import SafetensorError

from entailor.config import ModelSettings, PromptSettings, parse_settings
from entailor.errors import RunError
from entailor.methods import Classifier, Method, build_method
from entailor.models.load import load_backbone, open_model
from entailor.models.precision import PrecisionChoice
from entailor.models.source import resolve_model
from entailor.record import RECORD_FILE, check_trial_files, read_json
from entailor.tasks import Task

CLASSIFIER_FILE = "classifier.json"
CLASSIFIER_VERSION = 1
FP32 = PrecisionChoice("fp32", "scores are computed in fp32")


def learned_folder(method: Method) -> str:
    """Return the name of the folder a method's classifier is saved in."""
    return "model" if method.stores_whole_model else "adapter"


def load_classifier(trial: str | Path, *, full_precision: bool = False, trust_remote_code: bool = False) -> Classifier:
    """Load a finished trial's classifier, in evaluation mode.

    Args:
        trial: the folder ``runs/NAME/trials/MODEL/METHOD/seed-N``.
        full_precision: leave the base model's weights as they are, also where they were quantised for training.
        trust_remote_code: run code that comes with its checkpoint, where it was trained so. A run folder may come from
            a stranger, so what stands in it does not decide this.

    Raises:
        RunError: not a trial's folder, a damaged one, or the base model is no longer the one it was trained on.
    """
    folder = Path(trial)
    if (folder / RECORD_FILE).exists():
        check_trial_files(folder, (CLASSIFIER_FILE, "adapter", "model"))
    saved = read_json(folder / CLASSIFIER_FILE)
    try:
        if saved["version"] != CLASSIFIER_VERSION:
            raise RunError(f"{folder / CLASSIFIER_FILE}: written by another version of Entailor. Run the trial again")
        prompt = parse_settings(PromptSettings, saved["prompt"], where="prompt")
        day = date.fromisoformat(saved["date"]) if "date" in saved else date.today()
        task = Task(tuple(saved["labels"]), saved["is_pair"], prompt, day)
        settings = parse_settings(ModelSettings, saved["model_settings"], where="model")
        method = build_method(saved["method"], saved["hyperparameters"])
        model, digest, seed = saved["model"], saved["weights_sha256"], saved["seed"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{folder / CLASSIFIER_FILE}: not whole ({error!r}). Run the trial again") from None
    if settings.trust_remote_code and not trust_remote_code:
        raise RunError(
            f"{folder}: trained with code that comes with {model}, which is run only when asked for by name. If you "
            "trust it, add --trust-remote-code (in Python trust_remote_code=True)"
        )
    backbone = None
    if method.stores_whole_model:
        source = resolve_model(str(folder / "model"))
        settings = settings.model_copy(update={"head": "checkpoint"})
    elif method.needs_backbone:
        source = open_model(model, settings)
        if source.weights_sha256 != digest:
            raise RunError(
                f"{folder}: trained on {model} with weights {str(digest)[:12]}..., but {source.path} now holds "
                f"{source.weights_sha256[:12]}.... Give back the same checkpoint or train again"
            )
    if full_precision:
        settings = settings.model_copy(update={"load_in_4bit": False, "load_in_8bit": False})
    if method.needs_backbone:
        backbone = load_backbone(source, task, settings, FP32, seed, method.objective)
    classifier = method.adapt(backbone, task, seed)
    learned = folder / learned_folder(method)
    try:
        classifier.load(learned)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise RunError(f"{learned}: cannot be loaded ({error}). Delete {folder} and run the trial again") from None
    if isinstance(classifier, torch.nn.Module):
        classifier.eval()
    return classifier
