"""A checkpoint in memory: a `transformers` classifier with the task's labels or a language model, and its tokenizer.

Loads safetensors only. What the checkpoint did not carry is named in `new_modules`, so that it is trained and saved.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from entailor.config.parts import ModelSettings
from entailor.errors import EntailorError, ModelError
from entailor.models.checkpoint import load_checkpoint, unread_weights
from entailor.models.device import main_device
from entailor.models.heads import (
    has_own_head,
    head_modules,
    match_labels,
    name_labels,
    pooler_modules,
    reorder_head,
    reset_head,
    task_of_own_head,
)
from entailor.models.memory_plan import Placement, check_room, plan_placement
from entailor.models.precision import PrecisionChoice
from entailor.models.prompts import PromptEncoder
from entailor.models.resolve.source import ModelFolder, resolve_model
from entailor.models.saved_form import saved_form
from entailor.models.sizes import bounded_skeleton
from entailor.models.streaming import StreamedLayers
from entailor.models.tokenizer import TextEncoder, check_tokenizer, fit_tokenizer
from entailor.runs.network import check_no_hub_kernels
from entailor.tasks import Task

Family = Literal["encoder", "decoder"]
Objective = Literal["classify", "language_model", "entailment"]
ANSWER_SETTINGS = {"return_dict": True, "torchscript": False, "output_attentions": False, "output_hidden_states": False}
"""How a model hands over what it computes, which its configuration may have for other users of it."""
BackboneKind = Literal["encoder", "decoder", "language_model"]


@dataclass
class Backbone:
    """A loaded checkpoint with its tokenizer and precision.

    Attributes:
        folder: where it came from, with the hash of its weights.
        model: a `transformers` sequence classifier or causal language model in fp32, in evaluation mode.
        text_encoder: text to token ids.
        precision: arithmetic of training; scores are computed in fp32.
        new_modules: modules that must be trained and saved, whatever the method: those initialised just now (the head,
            mostly), and the pooler a new head reads through.
        events: what the reader of a record must know about loading.
        warnings: what else is shown at once.
        own_head: whether the checkpoint's own classification head is kept.
        kind: what is read: an encoder's head, a decoder's head at the last token, or a language model's output layer.
        placement: what stands where, in how many bytes.
        layers: what runs them one at a time under model.stream.
    """

    folder: ModelFolder
    model: Any
    text_encoder: TextEncoder | PromptEncoder
    precision: PrecisionChoice
    new_modules: tuple[str, ...]
    events: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    own_head: bool = False
    kind: BackboneKind = "encoder"
    placement: Placement | None = None
    layers: StreamedLayers | None = None

    @property
    def quantized(self) -> bool:
        """Whether weights are in 4 or 8 bits; such weights cannot be trained."""
        return self.placement is not None and self.placement.settings.quantized

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = self.model.device
        return device

    def leave_own_head(self, reason: str) -> None:
        """Note that a classifier does without the checkpoint's own head, where there is one."""
        if self.own_head:
            self.events += (f"but it is not used: {reason}",)


def open_model(name: str, settings: ModelSettings, *, hash_again: bool = False) -> ModelFolder:
    """Find or fetch a checkpoint as the settings say: its revision, and its code only where that was allowed.

    Args:
        name: as in `resolve_model`.
        settings: how it is to be loaded.
        hash_again: believe no remembered hash of the weights.

    Raises:
        ModelError: it cannot be found, fetched or trusted.
    """
    code = settings.trust_remote_code
    return resolve_model(name, revision=settings.revision, remote_code=code, hash_again=hash_again)


def load_backbone(
    folder: ModelFolder,
    task: Task,
    settings: ModelSettings,
    precision: PrecisionChoice,
    seed: int,
    objective: Objective = "classify",
) -> Backbone:
    """Load a checkpoint as a classifier of the task's labels, or as the language model it is.

    Args:
        folder: a resolved checkpoint.
        task: gives the labels.
        settings: how to load it.
        precision: arithmetic of training.
        seed: of the weights the checkpoint does not carry.
        objective: classify: with a classification head. language_model: with its output layer; decoders only.
            entailment: with its own head and that head's labels, one of which is entailment; not the task's.

    Raises:
        HeadMismatchError: the checkpoint's own head is for other labels.
        ModelError: the files cannot be read, the architecture is unknown, an encoder is asked for words, or a head for
            entailment that knows none.
    """
    config = read_config(folder, settings)
    if objective == "entailment":
        task, settings = task_of_own_head(config, folder.name), settings.model_copy(update={"head": "checkpoint"})
    options: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code, "local_files_only": True}
    tokenizer, family = open_tokenizer(folder, settings), family_of(config.model_type)
    fit_tokenizer(folder.name, tokenizer, config, is_decoder=family == "decoder")
    with _readable_errors(folder.name):
        text_encoder = _text_encoder(tokenizer, config, task, settings, family, objective)
    if precision.precision == "bf16" and main_device().type == "cpu":
        # the CPU's fused attention is slow in bf16: its backward pass alone takes half of a small model's step
        options["attn_implementation"] = "eager"
    if objective == "language_model":
        if family == "encoder":
            raise ModelError(
                f"{folder.name}: a {config.model_type} encoder, which continues no text; label words are scored by "
                "decoders. Set head=classifier, or give a decoder with --model"
            )
        plan = _checked_plan(folder, config, settings, objective)
        model, unread = _load_language_model(folder, plan, options)
        backbone = Backbone(folder, model, text_encoder, precision, (), warnings=unread, kind="language_model")
    else:
        rows = _rows_of_own_head(folder, config, task, settings)
        plan = _checked_plan(folder, config, settings, objective, None if rows is not None else len(task.labels))
        model, missing, events, unread, kept = _load_with_head(folder, task, plan, rows, seed, options)
        backbone = Backbone(folder, model, text_encoder, precision, missing, events, unread, kept, kind=family)
    # the pad id of text and model must agree; positions never depend on it
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    for name, value in ANSWER_SETTINGS.items():
        if getattr(model.config, name, value) != value:
            setattr(model.config, name, value)
    model.eval()
    if plan.device_map is None:
        model.to(plan.main)
    backbone.placement = plan
    if settings.stream:
        backbone.layers = StreamedLayers(model, model.mapped_files, folder.name)
    return backbone


def plan_model(name: str, settings: ModelSettings, task: Task, objective: Objective = "classify") -> Placement:
    """Plan the loading of a model by its name, and refuse a plan that cannot fit.

    Raises:
        ModelError: it cannot be found or read, or there is no room for it.
    """
    folder = open_model(name, settings)
    config = read_config(folder, settings)
    return _checked_plan(folder, config, settings, objective, len(task.labels) if objective == "classify" else None)


def bare_architecture(name: str, settings: ModelSettings) -> Any:
    """Return a classifier of a checkpoint's architecture, without memory for its weights.

    Raises:
        ModelError: the checkpoint cannot be found or read.
    """
    from transformers import AutoModelForSequenceClassification

    folder = open_model(name, settings)
    config = read_config(folder, settings)
    with _readable_errors(folder.name), bounded_skeleton():
        return AutoModelForSequenceClassification.from_config(config, trust_remote_code=settings.trust_remote_code)


def read_config(folder: ModelFolder, settings: ModelSettings) -> Any:
    """Return a checkpoint's configuration as `transformers` reads it.

    Raises:
        ModelError: it cannot be read, its architecture is unknown, or a size in it is none.
    """
    from transformers import AutoConfig

    check_no_hub_kernels()
    trusted = settings.trust_remote_code
    with _readable_errors(folder.name):
        return AutoConfig.from_pretrained(folder.path, trust_remote_code=trusted, local_files_only=True)


def open_tokenizer(folder: ModelFolder, settings: ModelSettings) -> Any:
    """Return a checkpoint's fast tokenizer, tried out of process before it is read in this one.

    Raises:
        ModelError: it has none, or one that cannot be used.
    """
    from transformers import AutoTokenizer

    check_tokenizer(folder.path)
    trusted = settings.trust_remote_code
    with _readable_errors(folder.name):
        tokenizer = AutoTokenizer.from_pretrained(folder.path, trust_remote_code=trusted, local_files_only=True)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{folder.name}: it has no fast tokenizer (tokenizer.json). Save one with `tokenizers`")
    return tokenizer


def _checked_plan(
    folder: ModelFolder, config: Any, settings: ModelSettings, objective: Objective, num_labels: int | None = None
) -> Placement:
    """Return what loading takes, with a new head of `num_labels` where they are given."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    auto_class = AutoModelForCausalLM if objective == "language_model" else AutoModelForSequenceClassification
    with _readable_errors(folder.name):
        plan = plan_placement(folder.name, folder.path, config, auto_class, settings, num_labels)
    check_room(plan)
    return plan


def _text_encoder(
    tokenizer: Any, config: Any, task: Task, settings: ModelSettings, family: Family, objective: Objective
) -> TextEncoder | PromptEncoder:
    if family == "decoder":
        if settings.long_texts == "windows":
            raise ModelError("model.long_texts=windows is for encoders. Set model.long_texts=truncate")
        labels = objective == "language_model"
        return PromptEncoder(tokenizer, config, settings.max_length, task.template, with_labels=labels)
    windows = settings.long_texts == "windows"
    return TextEncoder(tokenizer, config, settings.max_length, windows=windows, stride=settings.window_stride)


def _rows_of_own_head(folder: ModelFolder, config: Any, task: Task, settings: ModelSettings) -> list[int] | None:
    """Return the row of each label in the checkpoint's own head, or None where that is not used."""
    wanted = has_own_head(config) and settings.head != "new"
    return match_labels(config, task.labels, folder.name) if wanted else None


def _load_with_head(
    folder: ModelFolder, task: Task, plan: Placement, rows: list[int] | None, seed: int, options: Mapping[str, Any]
) -> tuple[Any, tuple[str, ...], tuple[str, ...], tuple[str, ...], bool]:
    """Return the classifier, its new modules, what is to be recorded and to be shown, and if its own head is kept."""
    config, settings = plan.config, plan.settings
    own_head = has_own_head(config)
    model, missing, unread = _load_classifier(
        folder, task, plan, own_order=rows is not None, seed=seed, options=options
    )
    if not own_head and not missing & set(head_modules(model)):
        # its configuration did not say so, but the file carries a head, in an order of its own
        own_head = True
        rows = match_labels(config, task.labels, folder.name) if settings.head != "new" else None
    if settings.head == "checkpoint" and not own_head:
        raise ModelError(f"{folder.name}: model.head=checkpoint, but it has no classification head. Set model.head=new")
    events: tuple[str, ...] = ()
    if rows is not None:
        reorder_head(model, rows)
        events = (f"the checkpoint's own head is kept, matched by label name: rows {rows}",)
    elif own_head:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            missing |= set(reset_head(model))
        events = ("the checkpoint's own head is replaced by a new one (model.head=new)",)
    if rows is None:
        missing |= pooler_modules(model)
    name_labels(model.config, task)
    return model, tuple(sorted(missing)), events, unread, rows is not None


def _load_language_model(
    folder: ModelFolder, plan: Placement, options: Mapping[str, Any]
) -> tuple[Any, tuple[str, ...]]:
    """Return the model, and a warning where the files hold more."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]), _readable_errors(folder.name):
        model, info = load_checkpoint(AutoModelForCausalLM, folder.path, plan, _form(folder, plan), **options)
    absent = {*info["missing_keys"], *(str(key[0]) for key in info["mismatched_keys"])}
    if absent:
        raise ModelError(
            f"{folder.name}: {len(absent)} weights are missing or have another shape (e.g. {min(absent)}), so no word "
            "of it would mean anything. Give a checkpoint of a causal language model, or set head=classifier"
        )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, unread_weights(model, info["unexpected_keys"])


def _load_classifier(
    folder: ModelFolder, task: Task, plan: Placement, *, own_order: bool, seed: int, options: Mapping[str, Any]
) -> tuple[Any, set[str], tuple[str, ...]]:
    """Return the model, the names of the modules that were not in the files, and a warning where these hold more."""
    from transformers import AutoModelForSequenceClassification

    label_count = {} if own_order else {"num_labels": len(task.labels)}
    with torch.random.fork_rng(devices=[]), _readable_errors(folder.name):
        torch.manual_seed(seed)
        model, info = load_checkpoint(
            AutoModelForSequenceClassification, folder.path, plan, _form(folder, plan), **label_count, **options
        )
    absent = set(info["missing_keys"]) | {str(key[0]) for key in info["mismatched_keys"]}
    _refuse_half_loaded(model, absent, folder.name)
    tops = set(head_modules(model))
    new = {key.split(".")[0] if key.split(".")[0] in tops else key.rpartition(".")[0] for key in absent}
    return model, new, unread_weights(model, info["unexpected_keys"])


def _form(folder: ModelFolder, plan: Placement) -> Path | None:
    """Return the folder of the 4-bit form to load, or None where the model is quantised while it is read."""
    return saved_form(folder, plan) if plan.four_bit else None


def _refuse_half_loaded(model: Any, absent: set[str], name: str) -> None:
    """A file that lacks a good part of the encoder would train, silently, from noise."""
    inside = [key for key in absent if key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key]
    if inside:
        raise ModelError(
            f"{name}: {len(inside)} weights of the encoder are missing or have another shape "
            f"(e.g. {sorted(inside)[0]}). The file is damaged or belongs to another configuration"
        )


def family_of(model_type: str) -> Family:
    """Tell a decoder, which continues a text, from an encoder, which reads it from both sides; it may have both."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    encodes = {**MODEL_FOR_MASKED_LM_MAPPING_NAMES, **MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES}
    return "decoder" if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in encodes else "encoder"


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep reports, bars and notes to developers by `transformers` and `peft` off the terminal.

    What was missing from a checkpoint is in the loading info and is acted upon; the printed table repeats it. Who sets
    TRANSFORMERS_VERBOSITY to more than errors gets all of it.
    """
    from transformers.utils import logging

    if os.environ.get("TRANSFORMERS_VERBOSITY", "error") not in ("error", "critical"):
        yield
        return
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _readable_errors(name: str) -> Iterator[None]:
    """Turn what `transformers` raises over a bad folder into one ModelError."""
    try:
        with quiet_libraries():
            yield
    except EntailorError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError) as error:
        first = str(error).strip().split("\n")[0][:400]
        raise ModelError(
            f"{name}: cannot be loaded: {first.rstrip('.')}. Get it again from its source, or choose another model"
        ) from error
    except BaseException as error:
        # a panic of the tokenizers library is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{name}: its files are damaged: {str(error).strip()[:400] or error!r}") from error
