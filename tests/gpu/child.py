"""The process with the pretend accelerator: `tell` prints what a part found as JSON.

Parts: quick (every method, and faults: memory that runs out, a loss that is no number), whole (every training broken
off as well), mistakes (those of `mistakes`, planted one by one), examples (the configurations of the origin).
"""

import json
import traceback
import warnings
from pathlib import Path
from typing import Any

import tests.gpu.pretend as pretend
import torch
from tests.gpu.mistakes import MISTAKES, Mistake, planted
from tests.gpu.models import make_model, stand_in_for_4bit
from tests.gpu.rounds import ROUNDS, TEST, TOKENS, adapt, learn, play
from tests.test_examples import run_on_tiny_model

from entailor.engine.scorer import score
from entailor.errors import DivergedError

warnings.simplefilter("ignore")


RESUMED = ("lora", "p_tuning")
"""The rounds of the quick part whose training is broken off; the whole part does so with all."""


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
    name, plain = "lora-classifier", {"lora_dropout": 0.0}
    method, classifier = adapt(name, folder_of(name, place), changes=plain)
    torch.pretend.reset_peak_memory_stats()  # type: ignore[attr-defined]
    curves = [learn(method, classifier).curve]
    inputs = classifier.encode(TEST)
    scores = [score(classifier, inputs, TOKENS)]
    method, again = adapt(name, folder_of(name, place), changes=plain)
    with pretend.little_memory(0.6):
        result = learn(method, again)
        scores.append(score(again, inputs, TOKENS))
    curves.append(result.curve)
    losses = [[point.train_loss for point in curve if point.train_loss is not None] for curve in curves]
    method, broken = adapt(name, folder_of(name, place), changes=plain)
    return {
        "events": [event.text for event in result.events],
        "losses": losses,
        "score_gap": float(abs(scores[0] - scores[1]).max()),
        "diverged": _diverges(method, broken, at=5),
    }


def run_example(name: str, place: Path) -> dict[str, Any]:
    """Run an example configuration on a tiny model of its architecture; return errors and memory by candidate."""
    kind = "roberta" if "roberta" in name else "llama"
    run = run_on_tiny_model(name, make_model(kind, place), place / f"{name}-data")
    return {
        record.name: {"error": record.error, "peak": record.costs and record.costs.peak_gpu_memory_bytes}
        for record in run.records
    }


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
    stand_in_for_4bit()
    if part == "mistakes":
        return {mistake.name: notice(mistake, place) for mistake in MISTAKES}
    if part == "examples":
        return {name: run_example(name, place) for name in ("mnli_roberta_large_origin", "llama3_8b_origin")}
    quick = part == "quick"
    rounds = {name: problems_of(name, place, resume=not quick or name in RESUMED) for name in ROUNDS}
    return {"rounds": rounds, "faults": faults(place)} if quick else {"rounds": rounds}


def tell(part: str, place: Path) -> None:
    """Print what was found as the last line."""
    print("\n" + json.dumps(main(part, place)))
