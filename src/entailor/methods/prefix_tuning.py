"""Prefix tuning: trained keys and values in every layer, and the head.

Li & Liang 2021 (section 4); for classification with deep prompts Liu et al. 2022, "P-Tuning v2" (section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from entailor.classifiers.fitting import fitting
from entailor.classifiers.gradient_path import keep_what_learns
from entailor.classifiers.soft_prompt import SoftPromptClassifier, vocabulary_words
from entailor.errors import MethodError
from entailor.methods.base import LearningRate, SoftPromptMethod
from entailor.models.load import Backbone
from entailor.tasks import Task

# What the key and value projections are called: bert and models like it, distilbert, deberta, mpnet, llama and similar.
PROJECTIONS = (("key", "value"), ("k_lin", "v_lin"), ("key_proj", "value_proj"), ("k", "v"), ("k_proj", "v_proj"))
# One projection for query, key and value, in this order: modernbert, gpt2.
FUSED_PROJECTIONS = ("Wqkv", "c_attn")


class PrefixTuning(SoftPromptMethod, name="prefix_tuning"):
    """Train keys and values of virtual tokens in every layer, and the head."""

    summary: ClassVar[str] = "virtual keys and values in every layer"

    learning_rate: LearningRate = 1e-2
    init: Literal["vocabulary", "random"] = "vocabulary"
    """vocabulary: keys and values that ordinary words have in each layer. random: normal, deviation 0.02."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> PrefixClassifier:
        """Return the classifier.

        Raises:
            MethodError: no model, or its attention layers have projections of unknown names.
        """
        backbone = self.needed(backbone)
        with fitting(backbone, self.name):
            classifier = PrefixClassifier(self, backbone, task, seed)
        keep_what_learns(classifier, backbone, self.name)
        return classifier

    def misfit(self, architecture: Any) -> str | None:
        """Return why an architecture's keys and values cannot be reached."""
        if any(True for _ in attention_layers(architecture)):
            return super().misfit(architecture)
        return f"{architecture.config.model_type} has no key and value projections of a known name"


class PrefixClassifier(SoftPromptClassifier):
    """In every layer, keys and values at the virtual positions are replaced by trained ones.

    The virtual positions' own states are computed and then read by nobody, so this equals attention over a cache of
    N trained entries, on any architecture. Layers that look at a window only (modernbert's local ones) see the prefix
    from within that window.
    """

    def __init__(self, method: PrefixTuning, backbone: Backbone, task: Task, seed: int) -> None:
        super().__init__(backbone, task, method.num_virtual_tokens, method.pooling, seed)
        layers = list(attention_layers(self.body))
        if not layers:
            raise MethodError(
                f"prefix_tuning: {backbone.folder.name} has no key and value projections of a known name. "
                "Use p_tuning or lora"
            )
        for index, (attention, names) in enumerate(layers):
            _Replacement(self, index, attention, names)
        width = _key_width(*layers[0])
        self.recorded: dict[tuple[int, int], Tensor] | None = None
        shape = (len(layers), 2, method.num_virtual_tokens, width)
        generator = torch.Generator().manual_seed(seed)
        self.prefix_K2NH = nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(backbone.device))
        if method.init == "vocabulary":
            words = vocabulary_words(backbone.text_encoder.tokenizer, method.num_virtual_tokens, seed)
            self._start_at(words, backbone)

    def prompt(self) -> Tensor:
        """Return zeros: what stands at the input is never read."""
        width = self.model.get_input_embeddings().embedding_dim
        return torch.zeros(self.num_virtual_tokens, width, device=self.prefix_K2NH.device)

    def _start_at(self, words: list[int], backbone: Backbone) -> None:
        """Read the words once through the frozen encoder and keep their keys and values."""
        tokenizer = backbone.text_encoder.tokenizer
        # some decoders put no token in front of a text; any will do to stand before the words
        empty = tokenizer("", add_special_tokens=True)["input_ids"] or [tokenizer.pad_token_id]
        ids_1T = torch.tensor([[empty[0], *words, *empty[1:]]], device=backbone.device)
        self.recorded = {}
        with torch.no_grad():
            self.body(input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T))
            for (layer, which), rows_NH in self.recorded.items():
                self.prefix_K2NH[layer, which].copy_(rows_NH)
        self.recorded = None

    def replace(self, layer: int, which: int, rows_BTH: Tensor) -> Tensor:
        """Return rows_BTH with the virtual positions replaced; while words are read, only note them.

        Args:
            layer: index of the attention layer.
            which: 0 for keys, 1 for values.
            rows_BTH: what the projection gave.
        """
        end = 1 + self.num_virtual_tokens
        if self.recorded is not None:
            self.recorded[layer, which] = rows_BTH[0, 1:end].detach()
            return rows_BTH
        trained_BNH = self.prefix_K2NH[layer, which].to(rows_BTH.dtype).expand(rows_BTH.shape[0], -1, -1)
        return torch.cat([rows_BTH[:, :1], trained_BNH, rows_BTH[:, end:]], dim=1)


def attention_layers(body: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Yield every attention module with the names of its key and value projections, first layer first.

    Those that look at pictures are left out: text never enters them.
    """
    pictures = [part for part in body.modules() if getattr(part, "main_input_name", None) == "pixel_values"]
    blind = {id(module) for part in pictures for module in part.modules()}
    for module in (module for module in body.modules() if id(module) not in blind):
        children = dict(module.named_children())
        yield from ((module, (name,)) for name in FUSED_PROJECTIONS if name in children)
        for names in PROJECTIONS:
            if all(isinstance(children.get(name), nn.Linear) for name in names):
                yield module, names


def _key_width(attention: nn.Module, names: tuple[str, ...]) -> int:
    """Return how many numbers a key has, all heads together; fewer than the hidden size where heads share keys."""
    projection: Any = attention.get_submodule(names[0])
    width = getattr(projection, "out_features", None) or projection.nf  # nf: gpt2's own kind of linear layer
    return int(width if len(names) == 2 else width // 3)


class _Replacement:
    """Hooks of one attention layer.

    A projection may also be used on something else than the hidden states (deberta's relative positions), so only
    what it gives for the layer's own input is replaced.
    """

    def __init__(self, classifier: PrefixClassifier, index: int, attention: nn.Module, names: tuple[str, ...]) -> None:
        self.classifier, self.index = classifier, index
        self.hidden: Tensor | None = None
        attention.register_forward_pre_hook(self._note_input, with_kwargs=True)
        attention.register_forward_hook(self._forget_input)
        if len(names) == 1:
            attention.get_submodule(names[0]).register_forward_hook(self._replace_fused)
        else:
            for which, name in enumerate(names):
                attention.get_submodule(name).register_forward_hook(self._replacer(which))

    def _note_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.hidden = args[0] if args else kwargs["hidden_states"]

    def _forget_input(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.hidden = None  # held any longer, it would keep a whole batch in memory

    def _replacer(self, which: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return self.classifier.replace(self.index, which, output) if args[0] is self.hidden else output

        return hook

    def _replace_fused(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        query_BTH, key_BTH, value_BTH = output.chunk(3, dim=-1)
        return torch.cat(
            [
                query_BTH,
                self.classifier.replace(self.index, 0, key_BTH),
                self.classifier.replace(self.index, 1, value_BTH),
            ],
            dim=-1,
        )
