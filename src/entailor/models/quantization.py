"""Weights in 4 or 8 bits through `bitsandbytes`: which layers, in what arithmetic, and what is held against it.

NF4, FP4 and double quantisation are those of QLoRA (Dettmers et al. 2023, section 3), 8 bits those of LLM.int8()
(Dettmers et al. 2022). Only linear layers of the body are quantised. Says nothing of where weights stand.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from entailor.config.parts import ModelSettings
from entailor.errors import ModelError
from entailor.models.device import main_device
from entailor.models.heads import head_modules
from entailor.models.mapped import MappedFiles, stay_in

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

BLOCK = 64
"""Weights that share a scale."""
SCALE_BLOCK = 256
"""Scales that share a scale of their own under double quantisation."""
PIECE = 2**20
"""Weights quantised at a time on a CPU; a multiple of `BLOCK`. Their temporaries stay in the processor's cache."""
QUANTIZE_OP = "bitsandbytes::quantize_4bit"


def quantized_bytes(weight_shape: torch.Size | tuple[int, ...], settings: ModelSettings) -> int:
    """Return the bytes of one quantised weight with its scales.

    Args:
        weight_shape: of the layer's weight, (out, in).
        settings: say how many bits.
    """
    count = math.prod(weight_shape)
    if settings.load_in_8bit:
        return count + 4 * weight_shape[0]
    packed, scales = math.ceil(count / 2), math.ceil(count / BLOCK)
    if settings.bnb_4bit_use_double_quant:
        return packed + scales + 4 * math.ceil(scales / SCALE_BLOCK)
    return packed + 4 * scales


def modules_left_alone(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of what must stay in compute precision: heads, poolers, the output layer.

    A pooler belongs to the head even where it stands inside the body: checkpoints often lack it, and what is new is
    trained.
    """
    heads = set(head_modules(model))
    if output := getattr(model, "get_output_embeddings", lambda: None)():
        heads |= {path for path, module in model.named_modules() if module is output}
    return tuple(sorted(heads | {path for path, _ in model.named_modules() if path.endswith(".pooler")}))


def quantized_options(settings: ModelSettings, heads: Iterable[str]) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that quantise; none where the settings do not ask for it.

    Args:
        settings: how to load.
        heads: paths of modules that are left alone, with all that is in them.

    Raises:
        ModelError: the compute dtype is none for this machine.
    """
    if not settings.quantized:
        return {}
    _check_compute_dtype(settings)
    _load_bitsandbytes()
    # as patterns: transformers would also skip every module whose path merely ends in a plain name
    patterns = [f"(?:{path})" for path in heads]
    return {"quantization_config": _configuration(settings, patterns)}


def _configuration(settings: ModelSettings, skipped: list[str]) -> BitsAndBytesConfig:
    from transformers import BitsAndBytesConfig

    if settings.load_in_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    asked = settings.bnb_4bit_compute_dtype
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=settings.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=torch.float32 if asked == "auto" else getattr(torch, asked),
        llm_int8_skip_modules=skipped,
    )


def _check_compute_dtype(settings: ModelSettings) -> None:
    """Refuse half precision on a CPU without it: five to forty times slower (pytorch/pytorch#146508)."""
    asked = settings.bnb_4bit_compute_dtype
    on_cpu = settings.device_map == "cpu" or main_device().type == "cpu"
    if not on_cpu or asked in ("auto", "float32"):
        return
    has_it = {
        "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported,
        "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    if not has_it[asked]():
        raise ModelError(
            f"model.bnb_4bit_compute_dtype={asked}: this CPU has no {asked} and would take many times as long. "
            "Set it to auto or float32"
        )


def settle_quantized(model: Any, settings: ModelSettings, files: MappedFiles | None) -> None:
    """Make a freshly quantised model compute the same in training and in scoring, whatever the batch. In place.

    What is not quantised goes to fp32, but for the table of input embeddings: it may stay in the checkpoint's own half
    precision, since what is looked up is cast to fp32 and no digit is lost. An output layer that stays in its file
    is cast in pieces.

    Args:
        model: as `from_pretrained` left it.
        settings: how it was loaded.
        files: where table and output layer stay; None: they are in memory.
    """
    output = model.get_output_embeddings()
    table = model.get_input_embeddings().weight
    kept = [table]
    if files is not None:
        stay_in(files, model.get_input_embeddings(), output)
        kept += [] if output is None else [output.weight]
    elif output is not None and output.weight is table:
        kept = []
    for tensor in (*model.parameters(), *model.buffers()):
        half = tensor.dtype in (torch.bfloat16, torch.float16)
        if half and not any(tensor is one for one in kept):
            tensor.data = tensor.data.float()
    if table.dtype != torch.float32:
        model.get_input_embeddings().register_forward_hook(lambda layer, inputs, found: found.float())
    library = _load_bitsandbytes()
    for layer in model.modules():
        if isinstance(layer, library.nn.Linear4bit):
            _settle_4bit(layer, settings)
        elif isinstance(layer, library.nn.Linear8bitLt) and layer.weight.device.type == "cpu":
            layer.state = _weights_only_state(layer.state)


def _settle_4bit(layer: Any, settings: ModelSettings) -> None:
    # In evaluation mode bitsandbytes repacks the weights for a bf16 kernel, in place and for good: scores lose digits,
    # and a training that goes on after an evaluation gets no gradient through the layer.
    layer.support_avx512bf16_for_cpu = False
    layer.weight.quant_state.dtype = torch.float32  # that of gradients through the weight
    if settings.bnb_4bit_compute_dtype == "auto":
        layer.register_forward_pre_hook(_follow_autocast)


def _follow_autocast(layer: Any, inputs: tuple[Tensor, ...]) -> None:
    """Compute in what surrounds the layer: autocast's type in training, fp32 in scoring."""
    device = inputs[0].device.type
    layer.compute_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32


def _weights_only_state(state: Any) -> Any:
    """Return the state of an 8-bit layer with which a CPU unpacks the weights and computes in full precision.

    Without it, evaluation also rounds activations to 8 bits, and takes columns with outliers out by looking at the
    whole batch: a text's score would depend on its neighbours.
    """
    from bitsandbytes import MatmulLtState

    class WeightsOnly(MatmulLtState):
        """On a CPU `is_training` chooses the path that rounds nothing but weights."""

        @property
        def is_training(self) -> bool:
            return True

        @is_training.setter
        def is_training(self, value: bool) -> None:
            """Leave it so; the layer sets it at each call."""

    settled = WeightsOnly()
    settled.__dict__.update({key: value for key, value in vars(state).items() if key != "is_training"})
    return settled


def quantized_layer(linear: nn.Linear, settings: ModelSettings) -> nn.Module:
    """Return a layer on the CPU in as many bits as the settings say, settled; the layer itself where they say none."""
    if not settings.quantized:
        return linear
    library = _load_bitsandbytes()
    shape, bias = (linear.in_features, linear.out_features), linear.bias is not None
    layer: Any
    if settings.load_in_8bit:
        layer = library.nn.Linear8bitLt(*shape, bias=bias, has_fp16_weights=False)
        layer.load_state_dict(linear.state_dict())
        layer = layer.to("cpu")
        layer.state = _weights_only_state(layer.state)
        return layer.eval()  # type: ignore[no-any-return]
    layer = library.nn.Linear4bit(
        *shape,
        bias=bias,
        compute_dtype=torch.float32,
        compress_statistics=settings.bnb_4bit_use_double_quant,
        quant_type=settings.bnb_4bit_quant_type,
    )
    layer.load_state_dict(linear.state_dict())
    layer = layer.to("cpu")
    _settle_4bit(layer, settings)
    return layer.eval()  # type: ignore[no-any-return]


def quantized_tensors(weight: Tensor, settings: ModelSettings) -> dict[str, Tensor]:
    """Return a weight in 4 bits as tensors, by what `transformers` puts behind its name when it saves them.

    Args:
        weight: (out, in), on the CPU.
        settings: say which 16 levels, and how scales are kept.
    """
    library = _load_bitsandbytes()
    packed, state = library.functional.quantize_4bit(
        weight.contiguous(),
        blocksize=BLOCK,
        compress_statistics=settings.bnb_4bit_use_double_quant,
        quant_type=settings.bnb_4bit_quant_type,
    )
    return {"": packed, **{f".{key}": value for key, value in state.as_dict(packed=True).items()}}


def quantized_layers(model: nn.Module) -> list[str]:
    """Return the paths of the layers whose weights are in 4 or 8 bits."""
    library = _load_bitsandbytes()
    kinds = (library.nn.Linear4bit, library.nn.Linear8bitLt)
    return [path for path, module in model.named_modules() if isinstance(module, kinds)]


def copy_rounded_weights(rounded: nn.Module, model: nn.Module) -> None:
    """Give a model in full precision the weights that the layers of a quantised one stand for.

    Its answers are then those of the quantised model, which are not those of the weights before rounding.

    Args:
        rounded: the model with layers in 4 or 8 bits.
        model: the same model without any; changed in place.
    """
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight
    from transformers.pytorch_utils import Conv1D

    for path in quantized_layers(rounded):
        layer: Any = rounded.get_submodule(path)
        weight = dequantize_bnb_weight(layer.weight, getattr(layer, "state", None))
        plain: Any = model.get_submodule(path)
        with torch.no_grad():
            plain.weight.copy_(weight.T if isinstance(plain, Conv1D) else weight)


def check_heads_left_alone(model: nn.Module, heads: Iterable[str]) -> None:
    """Hold a quantised model against what must not be quantised (unsloth#5027, transformers#24037).

    Args:
        model: the loaded model.
        heads: paths of heads, poolers and output layer; norms are found by their class.

    Raises:
        ModelError: one of them was, or nothing was quantised at all.
    """
    quantized = quantized_layers(model)
    norms = [path for path, module in model.named_modules() if is_norm(module)]
    alone = {path for path in (*heads, *norms) if path}
    if wrong := [path for path in quantized if any(f"{path}.".startswith(f"{name}.") for name in alone)]:
        raise ModelError(
            f"{wrong[0]} was quantised, and heads, norms and output layers must not be. "
            "Load it without load_in_4bit and load_in_8bit, and report this model"
        )
    rounded = [
        name
        for name, tensor in model.named_parameters()
        if any(name.startswith(f"{path}.") for path in alone) and not tensor.is_floating_point()
    ]
    if rounded:
        raise ModelError(f"{rounded[0]} is stored in {model.get_parameter(rounded[0]).dtype}, not in full precision")
    if not quantized:
        raise ModelError(
            f"{type(model).__name__}: has no linear layer that could be quantised. "
            "Load it without load_in_4bit and load_in_8bit"
        )


def is_norm(module: nn.Module) -> bool:
    """Tell a norm by the name of its class."""
    return "norm" in type(module).__name__.lower()


def _load_bitsandbytes() -> ModuleType:
    """Import the library without its remark on an optional kernel, and let its CPU part quantise piece by piece."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import bitsandbytes
    finally:
        logger.setLevel(level)
    if not torch._C._dispatch_has_kernel_for_dispatch_key(QUANTIZE_OP, "CPU"):
        torch.library.register_kernel(QUANTIZE_OP, "cpu", quantize_in_pieces)
    library: ModuleType = bitsandbytes
    return library


def quantize_in_pieces(
    A: Tensor,
    blocksize: int,
    quant_type: str,
    quant_storage: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Round a tensor to 4 bits, bit for bit as `bitsandbytes` does, a piece at a time.

    The library has no CPU kernel of its own for this and takes about twenty bytes a weight of temporaries at once: more
    than all the rest of loading.

    Args:
        A: weights of any shape.
        blocksize: weights that share a scale.
        quant_type: nf4 or fp4.
        quant_storage: type in which the bytes are handed over.

    Returns:
        Two weights a byte, shape (bytes, 1), and the largest magnitude of each block.
    """
    from bitsandbytes.functional import get_4bit_type

    levels_16, code_16 = get_4bit_type(quant_type, device="cpu").sort()
    bounds_15, code_16 = (levels_16[1:] + levels_16[:-1]) / 2, code_16.to(torch.uint8)
    flat = A.reshape(-1)
    count = len(flat)
    packed = torch.empty((count + 1) // 2, dtype=torch.uint8)
    scales = torch.empty(math.ceil(count / blocksize))
    size = PIECE // blocksize * blocksize
    for start in range(0, count, size):
        piece = flat[start : start + size].float()
        length = len(piece)
        blocks = nn.functional.pad(piece, (0, -length % blocksize)).view(-1, blocksize)
        top = blocks.abs().amax(dim=1)
        scales[start // blocksize :][: len(top)] = top
        scaled = (blocks * (1.0 / top.clamp(min=1e-38)).unsqueeze(1)).clamp_(-1, 1).view(-1)
        codes = code_16[torch.bucketize(scaled, bounds_15, out_int32=True)]
        both = (codes[::2] << 4) | codes[1::2]
        half = (length + 1) // 2
        packed[start // 2 :][:half] = both[:half]
    return packed.view(quant_storage).unsqueeze(1), scales
