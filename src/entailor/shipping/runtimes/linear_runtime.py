"""Answers of a baseline: TF-IDF and a linear model, or label frequencies. `python predict.py < lines`. Needs numpy."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

MOST_HEADER = 1 << 20


def read_tensors(path: Path) -> dict[str, Any]:
    """Return the float64 tensors of a safetensors file."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    if size > min(MOST_HEADER, len(content) - 8):
        raise ValueError(f"{path}: no safetensors file")
    found = {}
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F64":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, F64 was expected")
        start, end = entry["data_offsets"]
        found[name] = np.frombuffer(content[8 + size + start : 8 + size + end], dtype="<f8").reshape(entry["shape"])
    return found


def words_of(text: str) -> list[str]:
    """Return a text's words and signs in lower case."""
    if text.isascii():
        return re.findall(r"\w+|[^\w\s]", text.lower())
    word, unseen = _unicode_word()
    return word.findall(unseen.sub("", text.lower()))


@cache
def _unicode_word() -> tuple[re.Pattern[str], re.Pattern[str]]:
    kinds = {code: unicodedata.category(chr(code)) for code in range(0x80, 0x20000)}
    marks = re.escape("".join(chr(code) for code, kind in kinds.items() if kind in ("Mn", "Mc")))
    unseen = re.escape("".join(chr(code) for code, kind in kinds.items() if kind == "Cf"))
    return re.compile(rf"[\w{marks}]+|[^\w\s{marks}]"), re.compile(f"[{unseen}]")


class Runtime:
    """An exported folder, loaded.

    Args:
        folder: holds manifest.json, linear.safetensors and vocabulary.json.
        base: not used; the folder holds all there is.
    """

    def __init__(self, folder: str | Path, base: str | None = None) -> None:
        folder = Path(folder)
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.labels: list[str] = self.manifest["labels"]
        self.settings: dict[str, Any] = self.manifest["input"]
        tensors = read_tensors(folder / "linear.safetensors")
        self.weight: Any = tensors.get("weight")
        self.bias: Any = tensors["bias"]
        self.blocks: list[tuple[dict[str, int], Any]] = []
        if self.settings["fields"]:
            for one in json.loads((folder / "vocabulary.json").read_text(encoding="utf-8")):
                self.blocks.append(({term: place for place, term in enumerate(one["terms"])}, np.array(one["idf"])))

    def tokenize(self, text: str, pair: str | None = None) -> list[list[int]]:
        """Return the numbers of the known n-grams of each text that is read."""
        return [sorted(counts) for counts in self._counts(text, pair)]

    def _counts(self, text: str, pair: str | None) -> list[dict[int, int]]:
        found = []
        texts = {"text": text, "text_pair": pair or ""}
        for field, (terms, _) in zip(self.settings["fields"], self.blocks, strict=True):
            words, counts = words_of(texts[field]), dict[int, int]()
            for length in range(1, self.settings["max_ngram"] + 1):
                for start in range(len(words) - length + 1):
                    place = terms.get(" ".join(words[start : start + length]))
                    if place is not None:
                        counts[place] = counts.get(place, 0) + 1
            found.append(counts)
        return found

    def logits(self, inputs: list[tuple[str, str | None]], batch_size: int = 32) -> Any:
        """Return logits of shape (inputs, labels), in fp64."""
        rows = np.repeat(self.bias[None], len(inputs), axis=0)
        for number, one in enumerate(inputs):
            start = 0
            for counts, (terms, idf) in zip(self._counts(*one), self.blocks, strict=True):
                places = np.array(sorted(counts), dtype=np.int64)
                values = np.array([1 + np.log(counts[place]) for place in places.tolist()]) * idf[places]
                if len(places):
                    rows[number] += (values / np.sqrt((values**2).sum())) @ self.weight[start + places]
                start += len(terms)
        return rows


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
