"""Every architecture that `transformers` can put a classification head on, with five methods: a table in Markdown.

A method is right where it trains, and scores texts alone as in a batch.

python -m tests.long.architectures [KIND ...]
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from tests.conftest import make_examples
from tests.methods.architectures import METHODS, TASK, make_model, two_steps
from tests.methods.conftest import logprobs

from entailor.errors import EntailorError
from entailor.models.load import family_of


def outcome(name: str, model: str) -> str:
    """Say how a method does on a model."""
    try:
        backbone, classifier = two_steps(name, model)
        rows = make_examples(4, seed=3, labels=TASK.labels)
        alone = np.concatenate([logprobs(classifier, [row]) for row in rows])
        if not np.allclose(logprobs(classifier, rows), alone, atol=1e-4):
            return "FAILED: its scores depend on the batch"
    except EntailorError as error:
        return f"refused: {str(error)[:160]}"
    except Exception as error:  # the table shows what must not happen
        return f"FAILED: {type(error).__name__}: {str(error)[:160]}"
    return "ok, without padding" if any("runs without padding" in event for event in backbone.events) else "ok"


def main(kinds: list[str]) -> None:
    """Print a line for each architecture."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    warnings.simplefilter("ignore")
    sys.stdout.write("| architecture | " + " | ".join(METHODS) + " |\n|" + "---|" * (len(METHODS) + 1) + "\n")
    for kind in kinds or sorted(KNOWN):
        with tempfile.TemporaryDirectory() as folder:
            try:
                model = make_model(kind, Path(folder), family_of(kind))
            except Exception as error:  # sizes of this kind are named in another way
                sys.stdout.write(f"| {kind} | not made: {type(error).__name__}: {str(error)[:100]} |\n")
                continue
            cells = [outcome(name, model).replace("\n", " ") for name in METHODS]
        sys.stdout.write(f"| {kind} | " + " | ".join(cells) + " |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
