"""Answers of a GGUF file by llama.cpp: log-probabilities of label words. `python predict.py < lines`.

Needs llama-cpp-python, tokenizers and numpy. Where llama-cpp-python is missing, transformers and torch read the file.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from entailor.shipping.runtimes.lines import answer_lines, places_given
from entailor.shipping.runtimes.tokens import TextTokens, read_manifest


class Runtime:
    """An exported folder, loaded.

    Args:
        folder: holds manifest.json and model.gguf.
        base: not used; the folder holds all there is.
        threads: of llama.cpp; None: as it chooses.
    """

    def __init__(self, folder: str | Path, base: str | None = None, threads: int | None = None) -> None:
        folder = Path(folder)
        self.manifest = read_manifest(folder)
        self.labels = self.manifest["labels"]
        self.settings = self.manifest["input"]
        self.tokens = TextTokens(folder, self.settings)
        self.engine = "llama.cpp" if find_spec("llama_cpp") else "transformers"
        self._read: Any = _LlamaCpp if self.engine == "llama.cpp" else _Transformers
        self._read = self._read(folder, min(self.settings["context"], self._most_tokens()), threads)

    def _most_tokens(self) -> int:
        """Return how many tokens a prompt has at most: what surrounds the texts, a word, and the texts."""
        asked = [self.settings, *self.settings["shots"]]
        around = [self.tokens._filled(frame, "", "") for one in asked for frame in (one["frame"], *one["answers"])]
        return int(self.settings["max_length"]) + max(map(len, around))

    def tokenize(self, text: str, pair: str | None = None) -> list[list[int]]:
        """Return token ids, and no token types."""
        ids, types = self.tokens(text, pair)
        return [list(ids), list(types)]

    def logits(self, inputs: list[tuple[str, str | None]], batch_size: int = 32) -> Any:
        """Return logits of shape (inputs, labels), in fp64; prompts are read one by one."""
        return np.array([self._one(*one) for one in inputs]).reshape(len(inputs), len(self.labels))

    def _one(self, text: str, pair: str | None) -> list[float]:
        words = self.tokens.words(text, pair)
        start = words[0][1]
        first = self._read.behind(words[0][0][:start], 0)
        scores = []
        for ids, _ in words:
            own = float(first[ids[start]])
            for place in range(start, len(ids) - 1):
                own += float(self._read.behind([ids[place]], place)[ids[place + 1]])
            scores.append(own / (len(ids) - start) if self.settings["by_length"] else own)
        return [(one - bias) / self.settings["scale"] for one, bias in zip(scores, self.settings["bias"], strict=True)]


class _LlamaCpp:
    """A model in llama.cpp; keys and values are kept in 32 bits, since 16 move log-probabilities by 1e-3."""

    def __init__(self, folder: Path, context: int, threads: int | None) -> None:
        import llama_cpp

        self.library: Any = llama_cpp
        kind = llama_cpp.GGML_TYPE_F32
        self.model: Any = llama_cpp.Llama(
            str(folder / "model.gguf"), n_ctx=context, n_gpu_layers=0, n_threads=threads, n_threads_batch=threads,
            type_k=kind, type_v=kind, verbose=False,
        )  # fmt: skip

    def behind(self, ids: list[int], place: int) -> Any:
        """Return log-probabilities of the next token behind `place` tokens that were read before, and these."""
        self.model.n_tokens = place
        self.model.eval(ids)
        found = self.library.llama_get_logits_ith(self.model.ctx, -1)
        return _log_softmax(np.ctypeslib.as_array(found, shape=(self.model.n_vocab(),)).astype(np.float64))


class _Transformers:
    """The same file read by transformers."""

    def __init__(self, folder: Path, context: int, threads: int | None) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), gguf_file="model.gguf", dtype=torch.float32
        ).eval()
        self.ids: list[int] = []

    def behind(self, ids: list[int], place: int) -> Any:
        """Return log-probabilities of the next token behind `place` tokens that were read before, and these."""
        self.ids = [*self.ids[:place], *ids]
        with self.torch.inference_mode():
            return _log_softmax(self.model(input_ids=self.torch.tensor([self.ids])).logits[0, -1].double().numpy())


def _log_softmax(row: Any) -> Any:
    top = row.max()
    return row - top - np.log(np.exp(row - top).sum())


def main(runtime: type[Any] = Runtime) -> None:
    """Answer lines of JSON."""
    places_given()
    answer_lines(runtime(Path(__file__).parent))


if __name__ == "__main__":
    main()
