"""Turns a GGUF file into a checkpoint folder with safetensors weights and a tokenizer, once.

The reading is transformers'. What is quantised in the file is unpacked: the result is a plain model.
"""

from __future__ import annotations

import contextlib
import copy
import io
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from entailor.errors import ModelError
from entailor.models.resolve.cache import file_sha256, new_folder, require_room, weights_sha256, write_source
from entailor.models.resolve.gguf_header import READER_FAILURES, GgufHeader, read_header, require_magic
from entailor.models.sizes import bounded_skeleton, text_size
from entailor.runs.trial_folder import folder_name

FLOAT32_UP_TO = 1_000_000_000
"""Parameters up to which weights are kept in float32, exactly as unpacked. Above, float16 halves the disk and memory;
its rounding is far below that of the 2 to 8 bits the file was stored in."""


def convert_gguf(path: Path, cache: Path, hashes: Path | None) -> Path:
    """Return the checkpoint folder made from a GGUF file, converting it the first time.

    Args:
        path: the file.
        cache: the folder of fetched and converted models.
        hashes: where the hash of the file is remembered, as in `file_sha256`.

    Raises:
        ModelError: the file is damaged, not GGUF, or of an architecture that cannot be converted.
    """
    require_magic(path)
    digest = file_sha256(path, hashes)
    target = cache / "gguf" / f"{folder_name(path.stem)}-{digest[:16]}"
    if not target.is_dir():
        with new_folder(target) as folder:
            write_checkpoint(path, folder)
            weights = weights_sha256(sorted(folder.glob("*.safetensors")))
            write_source(folder, name=path.name, gguf_sha256=digest, weights_sha256=weights)
    return target


def write_checkpoint(path: Path, folder: Path) -> None:
    """Write config, safetensors weights and tokenizer of a GGUF file into a folder.

    Raises:
        ModelError: the file is damaged, or transformers cannot turn it into a causal language model.
    """
    require_magic(path)
    header = read_header(path)
    import torch
    import transformers

    place = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    with _bars_only_on_a_terminal():
        try:
            config = transformers.AutoConfig.from_pretrained(**place)
            _check_size(path, header, config)
        except READER_FAILURES as error:
            raise ModelError(_cannot_convert(path, header, error)) from error
        dtype = torch.float32 if header.parameters <= FLOAT32_UP_TO else torch.float16
        require_room(folder, header.parameters * dtype.itemsize)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
            model, loaded = transformers.AutoModelForCausalLM.from_pretrained(
                **place, config=copy.deepcopy(config), dtype=dtype, output_loading_info=True, **_unpacked()
            )
        except READER_FAILURES as error:
            raise ModelError(_cannot_convert(path, header, error)) from error
        if missing := sorted(loaded["missing_keys"]):
            raise ModelError(
                f"{path}: {missing[0]!r} is missing ({len(missing)} tensors in all), so the model would be partly "
                f"random. Use the safetensors folder of this {header.architecture!r} model instead"
            )
        tokenizer.model_max_length = text_size(config, "max_position_embeddings") or tokenizer.model_max_length
        _save(_plain_copy(model, config), tokenizer, folder)


def _check_size(path: Path, header: GgufHeader, config: Any) -> None:
    """Hold what the metadata describe against the tensors before memory is taken for it.

    Raises:
        ModelError: the tensors are far too few.
    """
    from transformers import AutoModelForCausalLM

    with bounded_skeleton():
        model = AutoModelForCausalLM.from_config(config)
    described = sum(tensor.numel() for tensor in model.parameters())
    if described > 2 * header.parameters + 2**20:
        raise ModelError(
            f"{path}: its metadata describe {described:,} parameters, and its tensors hold {header.parameters:,}. "
            "Download it again, or use another file"
        )


def _unpacked() -> Mapping[str, Any]:
    """Ask newer versions of transformers for plain weights; older ones know nothing else."""
    import transformers

    settings = getattr(transformers, "GgufConfig", None)
    return {} if settings is None else {"quantization_config": settings(dequantize=True)}


def _plain_copy(model: Any, config: Any) -> Any:
    """Return the same weights in a model that does not remember the file, which would refuse to be saved."""
    import torch
    import transformers

    with torch.device("meta"):
        plain = transformers.AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    from safetensors import SafetensorError

    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        raise ModelError(f"{folder}: the weights could not be written ({error}). Is there room on the disk?") from error


def _cannot_convert(path: Path, header: GgufHeader, error: Exception) -> str:
    import transformers

    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"{path}: transformers {transformers.__version__} cannot make a causal language model of the architecture "
        f"{header.architecture!r} ({reason}). Use the model's safetensors folder or Hub id instead"
    )


@contextlib.contextmanager
def _bars_only_on_a_terminal() -> Iterator[None]:
    """Keep the readers' progress bars out of log files; errors are raised and warnings logged all the same."""
    if sys.stderr.isatty():
        yield
    else:
        with contextlib.redirect_stderr(io.StringIO()):  # one of the bars has no other switch
            yield
