"""What a broken-off training must have in common with its checkpoint, so that going on gives the same to the bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from entailor.data.example import Split
from entailor.runs.environment import installed_version
from entailor.tasks import Task

# A step of another version of these may round otherwise.
PACKAGES = ("torch", "transformers", "peft", "numpy", "tokenizers")


def training_identity(plan: Mapping[str, Any], task: Task, split: Split, weights_sha256: str | None) -> str:
    """Return a hash of everything that decides a training (64 hex digits).

    Args:
        plan: method, settings, model and seed; what JSON can hold.
        task: labels and input shape.
        split: all three parts.
        weights_sha256: of the checkpoint the training starts from, or None without one.
    """
    decisive = {
        "plan": plan,
        "labels": task.labels,
        "is_pair": task.is_pair,
        "split": split.fingerprint(),
        "weights_sha256": weights_sha256,
        "versions": {name: installed_version(name) for name in PACKAGES},
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
