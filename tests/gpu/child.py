"""The process with the pretend accelerator: `python -m tests.gpu.child PART FOLDER` prints what it found as JSON.

Parts: rounds (every method), mistakes (those of `mistakes`, planted one by one), faults (memory that runs out, a loss
that is no number).
"""

import json
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import tests.gpu.pretend as pretend
import torch
from tests.gpu.mistakes import MISTAKES, Mistake, planted
from tests.gpu.models import make_model
from tests.gpu.rounds import ROUNDS, adapt, learn, play

from entailor.errors import DivergedError

warnings.simplefilter("ignore")


def folder_of(name: str, place: Path) -> Path:
    make_model("bert", place)  # finds neighbours
    return make_model(ROUNDS[name][1], place)


def problems_of(name: str, place: Path, *, resume: bool = True) -> list[str]:
    pretend.waits.clear()
    pretend.products.clear()
    try:
        found = play(name, folder_of(name, place), pretend.waits, resume=resume).problems(pretend.NAME)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return [f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"]
    if name.endswith("-bf16") and not pretend.products[torch.bfloat16]:
        found.append("no product was computed in bf16")
    return found


def notice(mistake: Mistake, place: Path) -> list[str]:
    with planted(mistake):
        return problems_of(mistake.round, place, resume=mistake.resume)


def faults(place: Path) -> dict[str, Any]:
    """What a training comes to where memory runs out, and where a loss is no number in the middle of an interval."""
    name = "lora-classifier"
    found: dict[str, Any] = {}
    curves = []
    for share in (None, 0.6):
        method, classifier = adapt(name, folder_of(name, place))
        method = method.model_copy(update={"lora_dropout": 0.0})
        classifier = method.adapt(_backbone_again(name, place), classifier.task, 0)
        if share is None:
            pretend._reset_peak()
            result = learn(method, classifier)
        else:
            with pretend.little_memory(share):
                result = learn(method, classifier)
            found["events"] = result.events
        curves.append([point.train_loss for point in result.curve if point.train_loss is not None])
    found["losses"] = curves
    method, classifier = adapt(name, folder_of(name, place))
    found["diverged"] = _diverges(method, classifier, at=5)
    return found


def _backbone_again(name: str, place: Path) -> Any:
    from tests.conftest import FP32
    from tests.gpu.rounds import TASK

    from entailor.config.parts import ModelSettings
    from entailor.models.load import load_backbone
    from entailor.models.resolve.source import resolve_model

    return load_backbone(resolve_model(str(folder_of(name, place))), TASK, ModelSettings(), FP32, 0)


def _diverges(method: Any, classifier: Any, at: int) -> dict[str, Any]:
    """Give no number from a step on, and tell what was said and whether the weights are those before it."""
    plain, calls, before = classifier.logits, [0], []

    def logits(batch: Any) -> Any:
        calls[0] += classifier.training
        if classifier.training and calls[0] == at:
            before.extend(tensor.clone() for tensor in classifier.trained_state().values())
        return plain(batch) * (float("nan") if classifier.training and calls[0] >= at else 1.0)

    classifier.logits = logits
    try:
        learn(method, classifier)
    except DivergedError as error:
        pairs = zip(before, classifier.trained_state().values(), strict=True)
        kept = all(torch.equal(one.cpu(), other.cpu()) for one, other in pairs)
        return {"said": str(error), "kept": error.kept, "same": kept, "calls": calls[0]}
    return {"said": "nothing"}


def main(part: str, place: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    if part == "rounds":
        return {name: problems_of(name, place) for name in ROUNDS}
    if part == "mistakes":
        return {mistake.name: notice(mistake, place) for mistake in MISTAKES}
    return faults(place)


if __name__ == "__main__":
    answer = main(sys.argv[1], Path(sys.argv[2]))
    print("\n" + json.dumps(answer))
