"""Answers of an ONNX export: `python predict.py < lines`. Needs numpy, tokenizers and onnxruntime."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from entailor.shipping.runtimes.tokens import TextTokens


class Runtime:
    """An exported folder, loaded.

    Args:
        folder: holds manifest.json and model.onnx.
        base: not used; the folder holds all there is.
        threads: of one operator; None: as onnxruntime chooses.
    """

    def __init__(self, folder: str | Path, base: str | None = None, threads: int | None = None) -> None:
        import onnxruntime

        folder = Path(folder)
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.labels: list[str] = self.manifest["labels"]
        self.settings: dict[str, Any] = self.manifest["input"]
        self.tokens = TextTokens(folder, self.settings)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.names = {one.name for one in self.session.get_inputs()}

    def tokenize(self, text: str, pair: str | None = None) -> list[list[int]]:
        """Return token ids and token types."""
        ids, types = self.tokens(text, pair)
        return [list(ids), list(types)]

    def logits(self, inputs: list[tuple[str, str | None]], batch_size: int = 32) -> Any:
        """Return logits of shape (inputs, labels), in fp64."""
        rows = [self.tokens(*one) for one in inputs]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
        found = np.zeros((len(rows), len(self.labels)))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            found[chosen] = self._batch([rows[index] for index in chosen])
        return found

    def _batch(self, rows: list[tuple[list[int], list[int]]]) -> Any:
        longest = max(len(ids) for ids, _ in rows)
        ids_BT = np.full((len(rows), longest), self.settings["pad"], dtype=np.int64)
        mask_BT, types_BT = np.zeros_like(ids_BT), np.zeros_like(ids_BT)
        for place, (ids, types) in enumerate(rows):
            ids_BT[place, : len(ids)], mask_BT[place, : len(ids)], types_BT[place, : len(types)] = ids, 1, types
        fed = {"input_ids": ids_BT, "attention_mask": mask_BT, "token_type_ids": types_BT}
        (logits,) = self.session.run(["logits"], {name: fed[name] for name in self.names})
        return np.asarray(logits, dtype=np.float64)


def main(runtime: type[Any] = Runtime) -> None:
    """Read lines of JSON with text and text_pair, write lines with label and probabilities."""
    loaded = runtime(Path(__file__).parent)
    scale = loaded.manifest["temperature"] if "--calibrated" in sys.argv else 1.0
    for line in sys.stdin:
        row = json.loads(line)
        logits = loaded.logits([(row["text"], row.get("text_pair"))])[0] / (scale or 1.0)
        shares = np.exp(logits - logits.max())
        said = dict(zip(loaded.labels, (shares / shares.sum()).tolist(), strict=True))
        print(
            json.dumps({"label": max(said, key=lambda label: said[label]), "probabilities": said}, ensure_ascii=False)
        )


if __name__ == "__main__":
    main()
