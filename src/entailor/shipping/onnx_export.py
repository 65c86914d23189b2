"""ONNX by torch's own exporter, with batch and length really dynamic, and its int8 form: the smallest that passes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from entailor.errors import ConfigError, RunError
from entailor.models.load import quiet_libraries
from entailor.shipping.formats import write_script
from entailor.shipping.runtimes import onnx_runtime

MODEL_FILE = "model.onnx"
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "onnx-int8": ("onnx", "onnxscript", "onnxruntime")}
WEIGHT_NODES = ("MatMul", "Gemm")
CLOSE = 1e-4
"""Most by which a logit may differ from torch's at any shape."""
HURTING_SHARE = 4
"""One of so many layers is left out where all of them cost too much."""


def check_installed(name: str) -> None:
    """Refuse a format whose library is not there.

    Raises:
        ConfigError: names the extra.
    """
    missing = [library for library in NEEDED.get(name, ()) if find_spec(library) is None]
    if missing:
        raise ConfigError(f"--format {name}: {', '.join(missing)} is missing. pip install 'entailor[export]'")


class _Logits(nn.Module):
    """A sequence classifier with positional inputs and one output."""

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits_BL."""
        logits_BL: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits_BL


def write_onnx(classifier: Any, model: Any, folder: Path, settings: dict[str, Any]) -> None:
    """Write model.onnx, tokenizer.json and predict.py.

    Args:
        classifier: gives the tokenizer.
        model: a plain encoder with its head.
        folder: where to.
        settings: of the manifest's input.

    Raises:
        RunError: torch cannot export this architecture, or it froze a dimension.
    """
    plain = _plain_copy(model)
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if settings["types"] else ()))
    wrapped = _Logits(plain, names).eval()
    example = _made_up(names, 2, 9, plain.config.vocab_size)  # both above 1, or the exporter takes them for constants
    shapes = tuple({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for _ in names)
    with warnings.catch_warnings(), quiet_libraries():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                wrapped,
                example,
                str(folder / MODEL_FILE),
                dynamo=True,
                dynamic_shapes=(shapes,),
                input_names=list(names),
                output_names=["logits"],
                external_data=False,
                verbose=False,
                optimize=True,
            )
        except Exception as error:  # whatever torch's exporter raises means the same to the user
            kind = plain.config.model_type
            problem = str(error).strip().splitlines()[0][:200]
            raise RunError(f"onnx: torch cannot export {kind}: {problem}. Export transformers instead") from error
    check_shapes(folder / MODEL_FILE, wrapped, names, settings["max_length"])
    write_tokenizer_only(classifier, folder)
    write_script(folder, onnx_runtime)


def write_tokenizer_only(classifier: Any, folder: Path) -> None:
    """Write tokenizer.json, which is all the tokenizers library needs."""
    classifier.text_encoder.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def _plain_copy(model: Any) -> Any:
    """Return a fresh model with the same weights: nothing that was put in for speed must be traced."""
    config = type(model.config).from_dict({**model.config.to_dict(), "_attn_implementation": "eager"})
    fresh = type(model)(config)
    fresh.load_state_dict(model.state_dict())
    return fresh.float().eval()


def _made_up(names: tuple[str, ...], batch: int, length: int, vocabulary: int) -> tuple[Tensor, ...]:
    """Return inputs of random tokens, the last row with padding."""
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    ids_BT = torch.randint(5, vocabulary, (batch, length), generator=generator)
    mask_BT = torch.ones_like(ids_BT)
    if batch > 1 and length > 1:
        mask_BT[-1, length // 2 + 1 :] = 0
    made = {"input_ids": ids_BT, "attention_mask": mask_BT, "token_type_ids": torch.zeros_like(ids_BT)}
    return tuple(made[name] for name in names)


def check_shapes(file: Path, model: nn.Module, names: tuple[str, ...], max_length: int) -> None:
    """Run an ONNX file at 1x1, 1xmax and 7x33 and hold it against torch: exporters freeze dimensions and say success.

    Raises:
        RunError: it cannot be run at a shape, or answers otherwise.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inner: Any = model.model
    vocabulary = int(inner.config.vocab_size)
    for batch, length in ((1, 1), (1, max_length), (7, min(33, max_length))):
        inputs = _made_up(names, batch, length, vocabulary)
        with torch.inference_mode():
            expected = model(*inputs).numpy()
        try:
            (found,) = session.run(["logits"], {name: one.numpy() for name, one in zip(names, inputs, strict=True)})
        except Exception as error:  # onnxruntime has exceptions of its own in C++
            problem = str(error).splitlines()[0][:200]
            raise RunError(f"onnx: fails on {batch} x {length} tokens: a dimension was frozen ({problem})") from None
        gap = float(np.abs(np.asarray(found) - expected).max()) if found.shape == expected.shape else float("inf")
        if gap > CLOSE * max(1.0, float(np.abs(expected).max())):
            raise RunError(f"onnx: on {batch} x {length} tokens logits differ by {gap:.3g} from torch's")


def quantise(whole: Path, target: Path, settings: dict[str, Any]) -> None:
    """Write a file with weights of 8 bits, by onnxruntime's dynamic quantisation."""
    import logging

    from onnxruntime.quantization import quantize_dynamic

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # it advises a preparation that dynamic quantisation does not need
    try:
        quantize_dynamic(str(whole), str(target), **settings)
    finally:
        root.setLevel(before)


def variants(whole: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give ways to quantise, the smallest first; the head stays as it is in all of them."""
    import onnx
    from onnxruntime.quantization import QuantType

    model = onnx.load(str(whole))
    nodes = [node for node in model.graph.node if node.op_type in WEIGHT_NODES]
    head = [node.name for node in nodes[-1:]]
    for left_out, words in (((), ""), (_hurting(model, nodes), ", without the layers that rounding changes most")):
        for per_channel in (False, True):
            for kind in (QuantType.QInt8, QuantType.QUInt8):
                yield (
                    f"{kind.name}{', per channel' if per_channel else ''}{words}",
                    {"weight_type": kind, "per_channel": per_channel, "nodes_to_exclude": [*head, *left_out]},
                )


def _hurting(model: Any, nodes: list[Any]) -> tuple[str, ...]:
    """Return the layers whose weights rounding to 8 bits changes most, as a share of their size."""
    from onnx import numpy_helper

    weights = {one.name: one for one in model.graph.initializer}
    change = {}
    for node in nodes:
        for name in node.input:
            if name in weights and (values := numpy_helper.to_array(weights[name])).ndim == 2:
                step = float(np.abs(values).max()) / 127 or 1.0
                rounded = np.round(values / step) * step
                change[node.name] = float(((values - rounded) ** 2).sum() / max((values**2).sum(), 1e-30))
    return tuple(sorted(change, key=lambda name: -change[name])[: max(1, len(change) // HURTING_SHARE)])
