"""A pretend accelerator: finds on a CPU what code will do wrong on a GPU.

Importing this registers the device `pretend` with PyTorch's private-use back end (experimental; tried on torch 2.13),
so that `torch.accelerator` finds it. A tensor there holds a tensor of the CPU. Each operation

- fails where tensors lie on two devices, as on CUDA;
- fails where a float64 would be made, as on mps;
- draws random numbers from a generator of the device's own;
- is counted in `waits` where the host would wait for the device: values that are read, shapes that depend on
  values, and copies from memory that is not pinned.

It cannot show what only a kernel shows: speed, rounding, 4-bit kernels, real memory. `torch.inference_mode` becomes
`no_grad`, since such a tensor keeps no version counter there. Import it before entailor, in a process of its own.
"""

import collections
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
WATCHED = "/entailor/"
ROOM = 2**40

waits: collections.Counter[str] = collections.Counter()
"""What the host waited for, by operation and line of the watched package."""
products: collections.Counter[torch.dtype] = collections.Counter()
"""Matrix products on the device, by the type of their result."""

_READS = {
    f"aten::{name}" for name in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2")
}
_TAKE_BOTH = {f"aten::{name}" for name in ("_to_copy", "copy_", "index", "index_put", "index_put_", "_index_put_impl_")}
_PRODUCTS = {f"aten::{name}" for name in ("mm", "addmm", "bmm", "baddbmm")}


class _Memory:
    """Bytes handed out; nothing is counted as given back, so a peak is what was taken since it began."""

    taken = 0
    largest = 0
    """Bytes of the largest activation so far: a tensor of three dimensions or more."""
    most = ROOM
    """Bytes above which an activation finds no room."""


class _Generator:
    """The device's own random state, in the form of the CPU's."""

    state = torch.Generator().get_state()


def _seed(seed: int) -> None:
    _Generator.state = torch.Generator().manual_seed(seed).get_state()


def _set_state(state: torch.Tensor, device: object = None) -> None:
    _Generator.state = state.clone()


def _reset_peak(device: object = None) -> None:
    _Memory.taken = _Memory.largest = 0


def _module() -> types.ModuleType:
    """What `torch.pretend` answers, as `torch.cuda` would."""
    made = types.ModuleType(f"torch.{NAME}")
    answers = {
        "is_available": True,
        "is_initialized": True,
        "_is_in_bad_fork": False,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "Pretend 1",
        "get_amp_supported_dtype": [torch.bfloat16, torch.float16],
        "mem_get_info": (ROOM, ROOM),
        **dict.fromkeys(("synchronize", "set_device", "_lazy_init", "empty_cache")),
    }
    functions: dict[str, Callable[..., Any]] = {
        name: lambda *_, _answer=answer: _answer for name, answer in answers.items()
    }
    functions |= {"manual_seed": _seed, "manual_seed_all": _seed, "set_rng_state": _set_state}
    functions |= {"get_rng_state": lambda device=None: _Generator.state.clone()}
    functions |= {"reset_peak_memory_stats": _reset_peak, "max_memory_allocated": lambda device=None: _Memory.taken}
    for name, function in functions.items():
        setattr(made, name, function)
    return made


_setup_privateuseone_for_python_backend(NAME, backend_module=_module())
DEVICE = torch.device(NAME, 0)


class Pretend(torch.Tensor):
    """A tensor that claims to lie on the device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Pretend":
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{NAME} has no {held.dtype}")
        size = held.numel() * held.element_size()
        if held.dim() > 2:
            _Memory.largest = max(_Memory.largest, size)
            if size > _Memory.most:
                raise torch.OutOfMemoryError(f"{NAME} out of memory: {size} bytes")
        _Memory.taken += size
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Pretend({tuple(self.shape)}, {self.dtype})"


def inside(value: Any) -> Any:
    """Return the CPU tensor that a tensor of the device holds; anything else as it is."""
    return value.held if isinstance(value, Pretend) else value


def _apply(change: Callable[[Any], Any], value: Any) -> Any:
    """Return arguments or results with everything in them changed."""
    if isinstance(value, (list, tuple)):
        return type(value)([_apply(change, one) for one in value])
    return change(value)


def _leaves(values: Any, found: list[Any]) -> list[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            _leaves(value, found)
        elif isinstance(value, (torch.Tensor, torch.Generator)):
            found.append(value)
    return found


def _wait(what: str) -> None:
    """Count a wait at the line of the watched package that led to it, and name the file of a library in between."""
    frame, library = sys._getframe(2), ""
    while frame and WATCHED not in frame.f_code.co_filename:
        if not library and "/torch/" not in frame.f_code.co_filename and frame.f_code.co_filename != __file__:
            library = f" in {frame.f_code.co_filename.rpartition('/')[2]}"
        frame = frame.f_back  # type: ignore[assignment]
    place = f"{frame.f_code.co_filename.rpartition(WATCHED)[2]}:{frame.f_lineno}" if frame else "elsewhere"
    waits[f"{what.removeprefix('aten::')} at {place}{library}"] += 1


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = op._schema.name
    flat = _leaves((*args, *kwargs.values()), [])
    tensors = [one for one in flat if isinstance(one, torch.Tensor)]
    there = [one for one in tensors if isinstance(one, Pretend)]
    here = [one for one in tensors if not isinstance(one, Pretend)]
    changed = name.endswith("_") and not isinstance(tensors[0], Pretend)
    mixed = changed or any(one.dim() > 0 for one in here)
    if there and mixed and name not in _TAKE_BOTH:  # CUDA reads scalars of the host
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {DEVICE} and cpu in {op}")
    to = kwargs.get("device")
    leaves = bool(there) and to is not None and not _is_there(to)
    if any(isinstance(one, torch.Generator) for one in flat) and (there or _is_there(to)):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' in {op}")
    _count(name, kwargs, args, there, leaves)

    plain_args = _apply(inside, tuple(args))
    plain = {key: _apply(inside, value) for key, value in kwargs.items() if key != "pin_memory"}
    if "device" in kwargs:
        plain["device"] = torch.device("cpu")
    goes_there = bool(there) or _is_there(to)
    if goes_there and torch.Tag.nondeterministic_seeded in op.tags:
        with _device_generator():
            out = op(*plain_args, **plain)
    else:
        out = op(*plain_args, **plain)

    def close(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or leaves or not goes_there:
            return value
        same = [one for one in tensors if inside(one) is value]  # of an operation in place
        return same[0] if same else Pretend(value)

    out = _apply(close, out)
    if name in _PRODUCTS and isinstance(out, Pretend):
        products[out.dtype] += 1
    return out


def _count(name: str, kwargs: dict[str, Any], args: Any, there: list[Any], leaves: bool) -> None:
    waits_to_send = not kwargs.get("non_blocking") and _is_there(kwargs.get("device"))
    if name == "aten::copy_" and args[0].numel():
        to_device, from_device = (isinstance(one, Pretend) for one in args[:2])
        leaves = from_device and not to_device
        blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        waits_to_send = blocking and to_device and not from_device and args[1].dim() > 0
    elif name == "aten::_to_copy":
        waits_to_send = waits_to_send and not isinstance(args[0], Pretend)
    else:
        waits_to_send = False
    if name in ("aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"):
        indices = [one for one in args[1] if one is not None]
        if isinstance(args[0], Pretend):
            leaves = any(one.dtype in (torch.bool, torch.uint8) for one in indices)
            waits_to_send = any(not isinstance(one, Pretend) for one in indices)
    if (there and name in _READS) or leaves:
        _wait(name)
    elif waits_to_send:
        _wait(f"send by {name.removeprefix('aten::')}")


@contextmanager
def _device_generator() -> Iterator[None]:
    outside = torch.get_rng_state()
    torch.set_rng_state(_Generator.state)
    try:
        yield
    finally:
        _Generator.state = torch.get_rng_state()
        torch.set_rng_state(outside)


@contextmanager
def little_memory(share: float) -> Iterator[None]:
    """Let activations find no room above a share of the largest since the last reset of the peak."""
    _Memory.most = int(share * _Memory.largest)
    try:
        yield
    finally:
        _Memory.most = ROOM


_everything = torch.library.Library("_", "IMPL")
_everything.fallback(lambda op, *args, **kwargs: _run(op, args, kwargs), dispatch_key="PrivateUse1")


# --- autocast: products in the lower type, what loses digits in fp32, as on CUDA

_everything.fallback(torch.library.fallthrough_kernel, dispatch_key="AutocastPrivateUse1")
_autocast = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
_LOWER = ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "scaled_dot_product_attention")
_FULL = ("layer_norm", "softmax.int", "log_softmax.int", "nll_loss", "cross_entropy_loss", "sum", "pow.Tensor_Scalar")


def _register(name: str, dtype: Callable[[], torch.dtype]) -> None:
    base, _, overload = name.partition(".")
    op = getattr(getattr(torch.ops.aten, base), overload or "default")
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(*args: Any, **kwargs: Any) -> Any:
        def to(value: Any) -> Any:
            is_float = isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.bfloat16, torch.float16)
            return value.to(dtype()) if is_float and value.device.type == NAME else value

        with torch._C._ExcludeDispatchKeyGuard(key):
            return op(*_apply(to, args), **{key: _apply(to, value) for key, value in kwargs.items()})

    _autocast.impl(name, cast)


for _name in _LOWER:
    _register(_name, lambda: torch.get_autocast_dtype(NAME))
for _name in _FULL:
    _register(_name, lambda: torch.float32)


# --- what PyTorch, safetensors and transformers ask of a tensor past its operations


class _Constructors(torch.overrides.TorchFunctionMode):
    """Tensors from lists, pinned memory, and assignment to a slice, which fail inside torch for such a device."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and _is_there(kwargs.get("device")):
            return function(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        if function is torch.Tensor.tolist and isinstance(args[0], Pretend):
            return args[0].cpu().tolist()
        if function is torch.Tensor.pin_memory:
            return args[0]
        if function is torch.Tensor.__getitem__ and isinstance(args[0], Pretend) and isinstance(args[1], list):
            return args[0][torch.tensor(args[1]).to(DEVICE)]  # which waits, as it does on CUDA
        if function is torch.Tensor.__setitem__ and isinstance(args[0], Pretend) and not torch.is_grad_enabled():
            _assign(*args)
            return None
        return function(*args, **kwargs)


def _assign(tensor: Pretend, index: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor) and not isinstance(value, Pretend) and value.dim():
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {DEVICE} and cpu in an assignment"
        )
    indices = index if isinstance(index, tuple) else (index,)
    for one in indices:
        if isinstance(one, (list, torch.Tensor)) and not isinstance(one, Pretend):
            _wait("send by index_put_")
        elif isinstance(one, Pretend) and one.dtype == torch.bool:
            _wait("index_put_")
    tensor.held[_apply(inside, index)] = inside(value)


_constructors = _Constructors()
_constructors.__enter__()


def _without_inference(mode: Any = True) -> Any:
    if callable(mode):
        return torch.no_grad()(mode)
    return torch.no_grad() if mode else torch.enable_grad()


torch.inference_mode = _without_inference  # type: ignore[assignment, misc]


def _put_in_place_of(plain: Any, other: Any) -> None:
    """Replace a function in every module that has it: peft may have been imported before."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is plain:
                setattr(module, name, other)


def _save_what_is_held() -> None:
    """Let files be written from what a tensor holds: the libraries look at the address of its memory."""
    import safetensors.torch
    import transformers
    from transformers import pytorch_utils

    plain_id = pytorch_utils.id_tensor_storage
    _put_in_place_of(plain_id, lambda tensor: plain_id(inside(tensor)))
    if plain_pointer := getattr(pytorch_utils, "storage_ptr", None) or getattr(safetensors.torch, "storage_ptr", None):
        _put_in_place_of(plain_pointer, lambda tensor: plain_pointer(inside(tensor)))
    for plain_save in (safetensors.torch.save_file, safetensors.torch.save):

        def save(tensors: Any, *args: Any, _plain: Any = plain_save, **kwargs: Any) -> Any:
            return _plain({key: inside(tensor) for key, tensor in tensors.items()}, *args, **kwargs)

        _put_in_place_of(plain_save, save)
    plain_model = transformers.PreTrainedModel.save_pretrained

    def save_pretrained(self: Any, folder: Any, state_dict: Any = None, **kwargs: Any) -> None:
        tensors = {name: inside(tensor) for name, tensor in (state_dict or self.state_dict()).items()}
        plain_model(self, folder, state_dict=tensors, **kwargs)

    transformers.PreTrainedModel.save_pretrained = save_pretrained


_save_what_is_held()
