"""Answers of an ONNX export: `python predict.py < lines`. Needs numpy, tokenizers and onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from entailor.shipping.runtimes.lines import answer_lines, places_given
from entailor.shipping.runtimes.tokens import TextTokens, even_batches, read_manifest


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
        self.manifest = read_manifest(folder)
        self.labels = self.manifest["labels"]
        self.settings = self.manifest["input"]
        self.tokens = TextTokens(folder, self.settings)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other threads need the cores
        if threads:
            options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.names = {one.name for one in self.session.get_inputs()}

    def tokenize(self, text: str, pair: str | None = None) -> list[list[int]]:
        """Return token ids and token types."""
        return [list(ids) for view in self._views(text, pair) for ids in view]

    def _views(self, text: str, pair: str | None) -> list[tuple[list[int], list[int]]]:
        """Return ids and types of what is read: the input, and for a probe on pairs each text by itself as well."""
        texts = {"both": (text, pair), "text": (text, None), "text_pair": (pair or "", None)}
        return [self.tokens(*texts[view]) for view in self.settings.get("views", ["both"])]

    def logits(self, inputs: list[tuple[str, str | None]], batch_size: int = 32) -> Any:
        """Return logits of shape (inputs, labels), in fp64."""
        rows = [self._views(*one) for one in inputs]
        found = np.zeros((len(rows), len(self.labels)))
        for chosen in even_batches([len(row[0][0]) for row in rows], batch_size):
            found[chosen] = self._batch([rows[index] for index in chosen])
        return found

    def _batch(self, rows: list[list[tuple[list[int], list[int]]]]) -> Any:
        views = self.settings.get("views")
        fed: dict[str, npt.NDArray[np.int64]] = {}
        for number, view in enumerate(views or [""]):
            for kind, values in self._padded([row[number] for row in rows]).items():
                fed[f"{kind}.{view}" if views else kind] = values
        (logits,) = self.session.run(["logits"], {name: fed[name] for name in self.names})
        return np.asarray(logits, dtype=np.float64)

    def _padded(self, rows: list[tuple[list[int], list[int]]]) -> dict[str, npt.NDArray[np.int64]]:
        longest = max(len(ids) for ids, _ in rows)
        ids_BT = np.full((len(rows), longest), self.settings["pad"], dtype=np.int64)
        mask_BT, types_BT = np.zeros_like(ids_BT), np.zeros_like(ids_BT)
        for place, (ids, types) in enumerate(rows):
            ids_BT[place, : len(ids)], mask_BT[place, : len(ids)], types_BT[place, : len(types)] = ids, 1, types
        return {"input_ids": ids_BT, "attention_mask": mask_BT, "token_type_ids": types_BT}


def main(runtime: type[Any] = Runtime) -> None:
    """Answer lines of JSON."""
    places_given()
    answer_lines(runtime(Path(__file__).parent))


if __name__ == "__main__":
    main()
