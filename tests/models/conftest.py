"""Tiny checkpoints made by hand, so that no test needs a network or a real model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

CheckpointWriter = Callable[[Path], Path]


@pytest.fixture
def write_tiny_checkpoint() -> CheckpointWriter:
    """Write a folder that looks like a checkpoint: valid files, no usable model."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
        (folder / "tokenizer.json").write_text("{}")
        save_file({"weight": np.arange(64, dtype=np.float32)}, folder / "model.safetensors")
        return folder

    return write


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point Entailor's cache and the Hub's at empty folders."""
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"
