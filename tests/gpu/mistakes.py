"""Device mistakes planted in our own code, each where a round shows it: what was written, what stands there instead."""

import __future__

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Mistake:
    """A change of one function.

    Attributes:
        name: what is wrong, in words.
        where: module (below entailor) and function.
        old: text of its source.
        new: what it is replaced by.
        round: the round that must notice.
        resume: whether the round must break off and go on to notice.
    """

    name: str
    where: str
    old: str
    new: str
    round: str
    resume: bool = False


MISTAKES = (
    Mistake("model left on the CPU", "models.load:load_backbone", "model.to(plan.main)", "pass", "lora"),
    Mistake(
        "targets left on the CPU",
        "engine.trainer:Training._loss",
        "send(targets_B, logits_BL.device)",
        "targets_B",
        "lora",
    ),
    Mistake(
        "ids left on the CPU",
        "classifiers.transformer:TransformerClassifier.collate",
        "send(ids_BT, device)",
        "ids_BT",
        "lora",
    ),
    Mistake(
        "mask left on the CPU, which transformers moves",
        "classifiers.transformer:TransformerClassifier.collate",
        "send(mask_BT, device)",
        "mask_BT",
        "lora",
    ),
    Mistake(
        "token types left on the CPU",
        "classifiers.transformer:TransformerClassifier.collate",
        "send(pad_ids([item.token_type_ids or [] for item in inputs], 0), device)",
        "pad_ids([item.token_type_ids or [] for item in inputs], 0)",
        "p_tuning",
    ),
    Mistake(
        "read position left on the CPU",
        "classifiers.readout:LastToken.logits",
        "send(batch.lengths_B, scores_BTL.device)",
        "batch.lengths_B",
        "lora-classifier",
    ),
    Mistake(
        "places of label words left on the CPU",
        "classifiers.transformer:TransformerClassifier.collate",
        "reads and reads.on(device)",
        "reads",
        "lora-verbalizer",
    ),
    Mistake(
        "indices of virtual tokens made on the CPU",
        "methods.p_tuning:PTuningClassifier.prompt",
        ", device=self.device",
        "",
        "p_tuning",
    ),
    Mistake(
        "new head left on the CPU",
        "classifiers.soft_prompt:SoftPromptClassifier.__init__",
        "head.to(backbone.device)",
        "head",
        "p_tuning",
    ),
    Mistake(
        "trained prefix left on the CPU",
        "methods.prefix_tuning:PrefixClassifier.__init__",
        ".to(backbone.device)",
        "",
        "prefix_tuning",
    ),
    Mistake(
        "generator of the CPU for a draw on the device",
        "methods.prefix_tuning:PrefixClassifier.__init__",
        "generator=generator)",
        "generator=generator, device=backbone.device)",
        "prefix_tuning",
    ),
    Mistake(
        "bias of calibration left on the CPU",
        "methods.in_context:InContextClassifier.logits",
        "send(self.bias_L, self.model.device)",
        "self.bias_L",
        "in_context",
    ),
    Mistake(
        "shared prefix left on the CPU, so that it is given up",
        "accel.prefix_cache:SharedPrefix.__init__",
        "send(torch.tensor([self.ids]), model.device)",
        "torch.tensor([self.ids])",
        "in_context",
    ),
    Mistake(
        "mask of trees left on the CPU, so that they are given up",
        "methods.in_context:InContextClassifier._collate_trees",
        "send(mask_B1TT, device)",
        "mask_B1TT",
        "in_context",
    ),
    Mistake(
        "sum of losses kept on the CPU",
        "engine.trainer:Training._backward",
        "torch.zeros((), device=self.device)",
        "torch.zeros(())",
        "lora",
    ),
    Mistake(
        "loss read at every step",
        "engine.trainer:Training._optimizer_step",
        "self.window.append((total, norm))",
        "self.window.append((total, norm)); total.item()",
        "lora",
    ),
    Mistake(
        "gradients checked tensor by tensor",
        "engine.trainer:Training._check_gradients",
        "self.reached |= torch.stack(",
        "all(bool(gradient.any()) for gradient in gradients); self.reached |= torch.stack(",
        "lora",
    ),
    Mistake(
        "scores read batch by batch",
        "engine.scorer:_logits",
        "[classifier.logits(classifier.collate(members))]",
        "[classifier.logits(classifier.collate(members)).cpu()]",
        "lora",
    ),
    Mistake(
        "mean over positions chosen by a boolean index",
        "classifiers.soft_prompt:_mean",
        "weight_BT1 = of_BT",
        "hidden_BTH[of_BT > 0]; weight_BT1 = of_BT",
        "p_tuning",
    ),
    Mistake(
        "copies from ordinary memory",
        "models.device:send",
        "tensor.pin_memory().to(device, non_blocking=True)",
        "tensor.to(device)",
        "lora",
    ),
    Mistake(
        "transformers asks the device whether a batch is padded",
        "accel.masks:ask_no_masks",
        'model.device.type == "cpu"',
        "True",
        "lora",
    ),
    Mistake("double precision on the device", "engine.scorer:_read", ".cpu().double()", ".double().cpu()", "lora"),
    Mistake(
        "autocast of another kind of device",
        "engine.trainer:Training._loss",
        "self.device.type, dtype",
        '"cpu", dtype',
        "lora-bf16",
    ),
    Mistake(
        "memory of cuda alone is measured",
        "models.device:peak_bytes",
        "in accelerators()",
        'in accelerators() if device.type == "cuda"',
        "lora",
    ),
    Mistake(
        "random state of the device not in the checkpoint",
        "models.device:random_states",
        "in accelerators()",
        'in [one for one in accelerators() if one.type == "cuda"]',
        "lora",
        resume=True,
    ),
    Mistake(
        "moments of the optimizer restored on the CPU",
        "engine.training_state:_restore_moments",
        "tensor.to(parameter.device) if on_parameter else tensor",
        "tensor",
        "lora",
        resume=True,
    ),
)


@contextmanager
def planted(mistake: Mistake) -> Iterator[None]:
    """Put a mistake into the package for the length of a block, wherever the function was imported to."""
    import sys

    module_name, _, path = mistake.where.partition(":")
    module = importlib.import_module(f"entailor.{module_name}")
    *owners, name = path.split(".")
    owner: Any = module
    for one in owners:
        owner = getattr(owner, one)
    plain = owner.__dict__[name]
    source = textwrap.dedent(inspect.getsource(plain))
    assert source.count(mistake.old) == 1, f"{mistake.name}: {mistake.where} holds {mistake.old!r} no more"
    if owners:  # super() without arguments needs its class
        source = source.replace("super()", f"super({owners[-1]}, self)")
    scope: dict[str, Any] = dict(vars(module))
    flags = __future__.annotations.compiler_flag
    exec(compile(source.replace(mistake.old, mistake.new), module.__file__ or "", "exec", flags), scope)
    changed = scope[name]
    holders = [(owner, name)] + [
        (other, key)
        for key_module, other in list(sys.modules.items())
        if key_module.startswith(("entailor.", "tests.gpu."))
        for key, value in list(vars(other).items())
        if value is plain and other is not owner
    ]
    for holder, key in holders:
        setattr(holder, key, changed)
    try:
        yield
    finally:
        for holder, key in holders:
            setattr(holder, key, plain)
