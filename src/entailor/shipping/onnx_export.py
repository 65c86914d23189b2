"""ONNX by torch's own exporter, with batch and length really dynamic, and its int8 form: the smallest that passes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from entailor.classifiers.frozen_encoder import compared
from entailor.classifiers.soft_prompt import SoftPromptClassifier
from entailor.classifiers.transformer import TokenBatch
from entailor.errors import ConfigError, RunError
from entailor.methods.linear_probe import LinearProbeClassifier
from entailor.models.load import quiet_libraries
from entailor.runs.integrity import disk_trouble
from entailor.shipping.formats import IN_GRAPH, write_script
from entailor.shipping.runtimes import onnx_runtime

MODEL_FILE = "model.onnx"
NEEDED = dict.fromkeys(("onnx", "onnx-int8"), ("onnx", "onnxscript", "onnxruntime"))
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


class _Prompted(nn.Module):
    """A soft prompt with its head, virtual tokens inside."""

    def __init__(self, classifier: SoftPromptClassifier, names: tuple[str, ...]) -> None:
        super().__init__()
        self.classifier, self.names = classifier, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits_BL."""
        return self.classifier.plain_forward(_batch(dict(zip(self.names, inputs, strict=True))))


class _Probe(nn.Module):
    """A frozen encoder and the regression on its pooled states; in fp64, as the regression was fitted."""

    def __init__(self, classifier: LinearProbeClassifier, names: tuple[str, ...]) -> None:
        super().__init__()
        self.reader, self.names = classifier.reader, names
        self.weight_FL, self.bias_L = map(torch.from_numpy, (classifier.linear.weight_FL, classifier.linear.bias_L))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits_BL."""
        views: dict[str, dict[str, Tensor]] = {}
        for name, one in zip(self.names, inputs, strict=True):
            kind, _, view = name.partition(".")
            views.setdefault(view, {})[kind] = one
        pooled = [self.reader.mean_states(_batch(view)) for view in views.values()]
        features_BF = torch.cat([*pooled, *compared(pooled[1:])], dim=1)
        return (features_BF.double() @ self.weight_FL + self.bias_L).float()


def _batch(fed: dict[str, Tensor]) -> TokenBatch:
    mask_BT = fed["attention_mask"]
    return TokenBatch(fed["input_ids"], mask_BT, fed.get("token_type_ids"), mask_BT.sum(1))


def write_onnx(source: Any, folder: Path) -> None:
    """Write model.onnx, tokenizer.json and predict.py.

    Args:
        source: the trial, see `Source`.
        folder: where to.

    Raises:
        RunError: torch cannot export this architecture, or it froze a dimension.
    """
    classifier, settings = source.classifier, source.input
    reader = getattr(classifier, "reader", classifier)
    names = input_names(settings)
    with _traceable(source, names) as wrapped:
        vocabulary = reader.text_encoder.tokenizer.vocab_size
        example = _made_up(names, 2, 9, vocabulary)  # both above 1, or the exporter takes them for constants
        shapes = tuple({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for _ in names)
        with warnings.catch_warnings(), quiet_libraries(), _quiet_logging("torch.onnx"), torch.no_grad():
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
                if disk_trouble(error):
                    raise
                kind = reader.model.config.model_type
                problem = str(error).strip().splitlines()[0][:200]
                raise RunError(f"onnx: torch cannot export {kind}: {problem}. Export transformers instead") from error
        check_shapes(folder / MODEL_FILE, wrapped, names, settings["max_length"], vocabulary)
    write_tokenizer_only(reader, folder)
    write_script(folder, onnx_runtime)


def input_names(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the graph's inputs: ids, mask and types; of each view where texts are read by themselves."""
    kinds = ("input_ids", "attention_mask", *(("token_type_ids",) if settings["types"] else ()))
    views = settings.get("views")
    return tuple(f"{kind}.{view}" for view in views for kind in kinds) if views else kinds


@contextmanager
def _traceable(source: Any, names: tuple[str, ...]) -> Iterator[nn.Module]:
    """Give what is traced: nothing in it was put there for speed."""
    classifier: Any = source.classifier
    if not isinstance(classifier, IN_GRAPH):
        yield _Logits(_plain_copy(source.merged), names).eval()
        return
    kind: Any = _Probe if isinstance(classifier, LinearProbeClassifier) else _Prompted
    reader: Any = getattr(classifier, "reader", classifier)
    model = reader.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield kind(classifier, names).eval()
    finally:
        model.set_attn_implementation(before)


def write_tokenizer_only(classifier: Any, folder: Path) -> None:
    """Write tokenizer.json, which is all the tokenizers library needs.

    Args:
        classifier: what reads texts.
        folder: where to.
    """
    classifier.text_encoder.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def _plain_copy(model: Any) -> Any:
    """Return a fresh model with the same weights: nothing that was put in for speed must be traced."""
    config = type(model.config).from_dict({**model.config.to_dict(), "_attn_implementation": "eager"})
    fresh = type(model)(config)
    fresh.load_state_dict(model.state_dict())
    return fresh.float().eval()


def _made_up(names: tuple[str, ...], batch: int, length: int, vocabulary: int) -> tuple[Tensor, ...]:
    """Return inputs of random tokens, the last row with padding; each view is one token shorter than the one before."""
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    made: dict[str, Tensor] = {}
    views = list(dict.fromkeys(name.partition(".")[2] for name in names))
    for shorter, view in enumerate(views):
        ids_BT = torch.randint(5, vocabulary, (batch, max(1, length - shorter)), generator=generator)
        mask_BT = torch.ones_like(ids_BT)
        if batch > 1 and length > 1:
            mask_BT[-1, length // 2 + 1 :] = 0
        kinds = {"input_ids": ids_BT, "attention_mask": mask_BT, "token_type_ids": torch.zeros_like(ids_BT)}
        made |= {f"{kind}.{view}" if view else kind: tensor for kind, tensor in kinds.items()}
    return tuple(made[name] for name in names)


def check_shapes(file: Path, model: nn.Module, names: tuple[str, ...], max_length: int, vocabulary: int) -> None:
    """Run an ONNX file at 1x1, 1xmax and 7x33 and hold it against torch: exporters freeze dimensions and say success.

    Raises:
        RunError: it cannot be run at a shape, or answers otherwise.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}
    for batch, length in ((1, 1), (1, max_length), (7, min(33, max_length))):
        inputs = _made_up(names, batch, length, vocabulary)
        with torch.inference_mode():
            expected = model(*inputs).numpy()
        fed = {name: one.numpy() for name, one in zip(names, inputs, strict=True) if name in taken}
        try:
            (found,) = session.run(["logits"], fed)
        except Exception as error:  # onnxruntime has exceptions of its own in C++
            problem = str(error).splitlines()[0][:200]
            raise RunError(f"onnx: fails on {batch} x {length} tokens: a dimension was frozen ({problem})") from None
        gap = float(np.abs(np.asarray(found) - expected).max()) if found.shape == expected.shape else float("inf")
        if gap > CLOSE * max(1.0, float(np.abs(expected).max())):
            raise RunError(f"onnx: on {batch} x {length} tokens logits differ by {gap:.3g} from torch's")


def _dynamic(whole: Path, target: Path, *, leave_out: bool = False, **settings: Any) -> None:
    """Round weights to 8 bits, and what is multiplied by them when it runs, by onnxruntime's dynamic quantisation."""
    from onnxruntime.quantization import quantize_dynamic

    nodes = _weight_nodes(whole)
    excluded = [nodes[-1].name, *(_hurting(whole, nodes) if leave_out else ())]  # the head stays as it is
    with _quiet_logging():
        quantize_dynamic(str(whole), str(target), nodes_to_exclude=excluded, **settings)


def _in_blocks(whole: Path, target: Path) -> None:
    """Round weights to 8 bits, 32 of them by one scale, and the table of token vectors."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    head = _weight_nodes(whole)[-1].name
    with _quiet_logging():
        rounded = MatMulNBitsQuantizer(
            onnx.load(str(whole)), bits=8, block_size=32, is_symmetric=True, accuracy_level=4, nodes_to_exclude=[head]
        )
        rounded.process()
        rounded.model.save_model_to_file(str(target))
        quantize_dynamic(str(target), str(target), weight_type=QuantType.QUInt8, op_types_to_quantize=["Gather"])


@contextmanager
def _quiet_logging(name: str | None = None) -> Iterator[None]:
    """Keep a library from advising what is not needed here: a preparation for rounding, torchvision."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _unsigned(whole: Path, target: Path, **settings: Any) -> None:
    from onnxruntime.quantization import QuantType

    _dynamic(whole, target, weight_type=QuantType.QUInt8, **settings)


def _signed(whole: Path, target: Path, **settings: Any) -> None:
    from onnxruntime.quantization import QuantType

    # of 8 signed bits processors without VNNI clip the sums, so that answers would depend on the machine
    _dynamic(whole, target, weight_type=QuantType.QInt8, reduce_range=True, **settings)


INT8_VARIANTS: dict[str, Callable[[Path, Path], None]] = {
    "unsigned": _unsigned,
    "unsigned, per channel": partial(_unsigned, per_channel=True),
    "signed of 7 bits, per channel": partial(_signed, per_channel=True),
    "weights alone, in blocks of 32": _in_blocks,
    "unsigned, per channel, without the layers that rounding changes most": partial(
        _unsigned, per_channel=True, leave_out=True
    ),
}
"""Ways to write onnx-int8 from a file in full precision, the smallest first."""


def _weight_nodes(whole: Path) -> list[Any]:
    import onnx

    return [node for node in onnx.load(str(whole)).graph.node if node.op_type in WEIGHT_NODES]


def _hurting(whole: Path, nodes: list[Any]) -> tuple[str, ...]:
    """Return the layers whose weights rounding to 8 bits changes most, as a share of their size."""
    import onnx
    from onnx import numpy_helper

    weights = {one.name: one for one in onnx.load(str(whole)).graph.initializer}
    change = {}
    for node in nodes:
        for name in node.input:
            if name in weights and (values := numpy_helper.to_array(weights[name])).ndim == 2:
                step = float(np.abs(values).max()) / 127 or 1.0
                rounded = np.round(values / step) * step
                change[node.name] = float(((values - rounded) ** 2).sum() / max((values**2).sum(), 1e-30))
    return tuple(sorted(change, key=lambda name: -change[name])[: max(1, len(change) // HURTING_SHARE)])
