"""Answers of a baseline: a linear model on TF-IDF or on averaged token vectors, or label frequencies.

`python predict.py < lines`. Needs numpy, and for token vectors tokenizers.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from entailor.shipping.runtimes.lines import answer_lines, places_given

MOST_HEADER = 1 << 20
KINDS = {"F64": "<f8", "F32": "<f4"}


class LinearInput(TypedDict, total=False):
    """The part `input` of a manifest: which texts are read, and how."""

    fields: list[str]
    max_ngram: int
    table: bool
    """Whether token vectors are averaged."""


class LinearManifest(TypedDict):
    """What is read of manifest.json."""

    labels: list[str]
    is_pair: bool
    temperature: float | None
    input: LinearInput


def read_tensors(path: Path) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Return the tensors of a safetensors file; of floating point alone."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    if size > min(MOST_HEADER, len(content) - 8):
        raise ValueError(f"{path}: no safetensors file")
    found = {}
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in KINDS:
            raise ValueError(f"{path}: {name} is {entry['dtype']}, F64 or F32 was expected")
        start, end = entry["data_offsets"]
        values = np.frombuffer(content[8 + size + start : 8 + size + end], dtype=KINDS[entry["dtype"]])
        found[name] = values.reshape(entry["shape"])
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
        folder: holds manifest.json, linear.safetensors, and vocabulary.json or table.safetensors and tokenizer.json.
        base: not used; the folder holds all there is.
    """

    def __init__(self, folder: str | Path, base: str | None = None) -> None:
        folder = Path(folder)
        self.manifest: LinearManifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.labels = self.manifest["labels"]
        self.settings = self.manifest["input"]
        tensors = read_tensors(folder / "linear.safetensors")
        self.weight: Any = tensors.get("weight")
        self.bias: Any = tensors["bias"]
        self.vectors: Any = None
        if self.settings.get("table"):
            from tokenizers import Tokenizer

            self.vectors = read_tensors(folder / "table.safetensors")["vectors"]
            self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self.tokenizer.no_truncation()
            self.tokenizer.no_padding()
        self.blocks: list[tuple[dict[str, int], Any]] = []
        if self.settings["fields"]:
            for one in json.loads((folder / "vocabulary.json").read_text(encoding="utf-8")):
                self.blocks.append(({term: place for place, term in enumerate(one["terms"])}, np.array(one["idf"])))

    def tokenize(self, text: str, pair: str | None = None) -> list[list[int]]:
        """Return the numbers of the known n-grams, or the tokens, of each text that is read."""
        if self.vectors is not None:
            return [self._ids(one) for one in (text, pair) if one is not None]
        return [sorted(counts) for counts in self._counts(text, pair)]

    def _ids(self, text: str) -> list[int]:
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return list(self.tokenizer.encode(whole, add_special_tokens=False).ids)

    def _means(self, text: str, pair: str | None) -> Any:
        """Return the mean vector of a text; of a pair both, and how they compare."""
        rows = [self.vectors[ids].mean(0) if ids else 0 * self.vectors[0] for ids in self.tokenize(text, pair)]
        if len(rows) == 2:
            rows += [np.abs(rows[0] - rows[1]), rows[0] * rows[1]]
        return np.concatenate(rows)

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
        if self.vectors is not None:
            return np.stack([self._means(*one) @ self.weight + self.bias for one in inputs])
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
    """Answer lines of JSON."""
    places_given()
    answer_lines(runtime(Path(__file__).parent))


if __name__ == "__main__":
    main()
