"""Divides the weights of a model among the processes of a launcher (FSDP2), so that none of them holds it whole.

Each holds some rows of every tensor. The layers of a model are put together one after the other while they run.
Gradients are sums over the processes: what a part of a batch weighs stands in its loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from entailor.classifiers.base import Classifier
from entailor.classifiers.transformer import TransformerClassifier
from entailor.errors import MethodError
from entailor.models.device import main_device
from entailor.models.sharded import whole

SHORTCUTS_OFF = "distributed.strategy=fsdp: no shortcut is taken, since they read whole weights"


def shard(classifier: Classifier, size: int, copy_first: Callable[[Sequence[Tensor]], None]) -> str:
    """Divide a classifier's weights, frozen and trained ones, in place.

    Args:
        classifier: that all processes hold alike, on the CPU; its weights go to the accelerator, where there is one,
            layer by layer.
        size: number of processes.
        copy_first: makes tensors those of the first process.

    Returns:
        What is not as in one process.

    Raises:
        MethodError: its model cannot be divided.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not isinstance(classifier, TransformerClassifier):
        raise MethodError(
            "distributed.strategy=fsdp: its classifier is no transformers model. Set distributed.strategy=ddp"
        )
    if classifier.equal_lengths:
        raise MethodError(
            "distributed.strategy=fsdp: this model runs texts of one length at a time, and processes would wait for "
            "each other at different layers. Set distributed.strategy=ddp, or take a model that reads no padding"
        )
    classifier.shortcut.proven = False
    copy_first([one for one in classifier.parameters() if one.requires_grad])
    mesh = init_device_mesh(main_device().type, (size,))
    for layer in layers_of(classifier):
        fully_shard(layer, mesh=mesh)
    fully_shard(classifier, mesh=mesh, reshard_after_forward=True)
    for module in classifier.modules():
        if isinstance(module, FSDPModule):
            # sums and not means; and plain sums, since gloo knows no sum with a factor
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return SHORTCUTS_OFF


def layers_of(classifier: nn.Module) -> list[nn.Module]:
    """Return the layers that `transformers` says stay in one piece, of the lists of layers of a model."""
    kinds: set[str] = set()
    for module in classifier.modules():
        kinds |= set(getattr(module, "_no_split_modules", None) or ())
    lists = [module for module in classifier.modules() if isinstance(module, nn.ModuleList)]
    return [layer for one in lists for layer in one if type(layer).__name__ in kinds]


def whole_tensors(classifier: Classifier, *, keep: bool) -> dict[str, Tensor]:
    """Return the trained tensors by name, put together on the CPU; every process calls it.

    Args:
        classifier: whose weights are divided.
        keep: False where this process does without them.
    """
    assert isinstance(classifier, TransformerClassifier)
    found = {}
    for name, tensor in classifier.trained_state().items():
        full = whole(tensor)
        if keep:
            found[name] = full.cpu()
    return found
