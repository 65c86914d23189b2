"""Answers of a checkpoint of transformers, or of a peft adapter beside its base model: `python predict.py < lines`.

Needs torch and transformers, and peft for an adapter.
"""

from __future__ import annotations

import os
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from entailor.shipping.runtimes.lines import answer_lines, places_given
from entailor.shipping.runtimes.tokens import TextTokens, even_batches, read_manifest


class Runtime:
    """An exported folder, loaded.

    Args:
        folder: holds manifest.json.
        base: folder or name of the base model of an adapter; None: as the manifest names it.
    """

    def __init__(self, folder: str | Path, base: str | None = None) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ["USE_HUB_KERNELS"] = "NO"  # code from the Hub is not run, whatever package is installed
        sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
        import torch
        import transformers

        folder = Path(folder)
        self.manifest = read_manifest(folder)
        self.labels = self.manifest["labels"]
        self.settings = self.manifest["input"]
        self.tokens = TextTokens(folder, self.settings)
        self.is_words = bool(self.settings.get("answers"))
        kind: Any = (
            transformers.AutoModelForCausalLM if self.is_words else transformers.AutoModelForSequenceClassification
        )
        # False, and not left out: then transformers asks at the terminal whether to run a stranger's code
        options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
        if self.manifest["format"] == "adapter":
            from peft import PeftModel

            heads = {} if self.is_words else {"num_labels": len(self.labels)}
            source = base or self.manifest["base_model"]["name"]
            model = kind.from_pretrained(source, revision=self.manifest["base_model"]["revision"], **options, **heads)
            self.model = PeftModel.from_pretrained(model, str(folder))
        else:
            self.model = kind.from_pretrained(str(folder), **options)
        self.model.config.pad_token_id = self.settings["pad"]  # transformers takes no batch without one
        self.model.eval()

    def tokenize(self, text: str, pair: str | None = None) -> list[list[int]]:
        """Return token ids and token types."""
        ids, types = self.tokens(text, pair)
        return [list(ids), list(types)]

    def logits(self, inputs: list[tuple[str, str | None]], batch_size: int = 32) -> Any:
        """Return logits of shape (inputs, labels), in fp64."""
        rows = [self.tokens(*one) for one in inputs]
        found = np.zeros((len(rows), len(self.labels)))
        for chosen in even_batches([len(ids) for ids, _ in rows], batch_size):
            if self.is_words:
                found[chosen] = [self._of_words(*inputs[index]) for index in chosen]
            else:
                found[chosen] = self._batch([rows[index] for index in chosen])
        return found

    def _batch(self, rows: list[tuple[list[int], list[int]]]) -> Any:
        import torch

        longest = max(len(ids) for ids, _ in rows)
        lengths = torch.tensor([len(ids) for ids, _ in rows])
        fed = {
            "input_ids": torch.tensor([[*ids, *[self.settings["pad"]] * (longest - len(ids))] for ids, _ in rows]),
            "attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
        }
        if self.settings["types"]:
            fed["token_type_ids"] = torch.tensor([[*types, *[0] * (longest - len(types))] for _, types in rows])
        with torch.inference_mode():
            if not self.settings.get("head"):
                return self.model(**fed).logits.double().numpy()
            seen: list[Any] = []  # a decoder's head is read at the last token, wherever padding is
            base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            handle = getattr(base, self.settings["head"]).register_forward_hook(lambda *parts: seen.append(parts[2]))
            self.model(**fed)
            handle.remove()
            return seen[0][torch.arange(len(rows)), lengths - 1].double().numpy()

    def _of_words(self, text: str, pair: str | None) -> list[float]:
        """Return scores of the label words; the prompt is read once where what was read of it can be kept."""
        import torch

        words = self.tokens.words(text, pair)
        start = words[0][1]
        prompt = words[0][0][:start]
        scores = []
        with torch.inference_mode():
            read = self.model(input_ids=torch.tensor([prompt]), use_cache=True)
            kept = getattr(read, "past_key_values", None)  # a state-space model keeps none
            first = torch.log_softmax(read.logits[0, -1].double(), dim=-1)
            for ids, _ in words:
                word = ids[start:]
                own = float(first[word[0]])
                if len(word) > 1:
                    if kept is None:
                        behind = self.model(input_ids=torch.tensor([ids[:-1]]))
                    else:  # a copy, since reading appends to it
                        behind = self.model(input_ids=torch.tensor([word[:-1]]), past_key_values=deepcopy(kept))
                    logits = behind.logits[0, 1 - len(word) :]
                    log_p = torch.log_softmax(logits.double(), dim=-1)
                    own += float(log_p.gather(1, torch.tensor(word[1:])[:, None]).sum())
                scores.append(own / len(word) if self.settings["by_length"] else own)
        return [(one - bias) / self.settings["scale"] for one, bias in zip(scores, self.settings["bias"], strict=True)]


def main(runtime: type[Any] = Runtime) -> None:
    """Answer lines of JSON; the base model of an adapter may stand on the command line."""
    answer_lines(runtime(Path(__file__).parent, *places_given(1)))


if __name__ == "__main__":
    main()
