"""Accuracy of each trained method with the exact shortcuts, without them, and trained in bf16, on the same split.

Shortcuts draw other dropout masks, so single seeds differ; what must not differ is where they lie.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from measure import arguments, report
from torch import nn

from entailor import DataSettings, Experiment, ModelSettings, Observer, compare
from entailor.accel import dropout as dropout_file
from entailor.accel.shortcut import Shortcut


@contextmanager
def without_shortcuts() -> Iterator[None]:
    """Run models as `transformers` and `peft` have them, with PyTorch's own dropout, inside the block."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(Shortcut, "fits", lambda self: False))
        stack.enter_context(patch.object(dropout_file, "dropout", nn.functional.dropout))
        yield


def accuracies(options: Any, precision: Literal["fp32", "bf16"], out: Path) -> dict[str, list[float]]:
    """Train and test every method with every seed."""
    names = options.methods.split(",")
    data = DataSettings(
        train=options.data,
        test=options.test,
        validation_size=500,
        max_train_examples=options.rows,
        max_test_examples=options.test_rows,
    )
    experiment = Experiment(
        data=data,
        model=ModelSettings(precision=precision),
        methods={name: {"num_train_epochs": options.epochs} for name in names},
        seeds=options.seeds,
        estimate=False,
        out=str(out),
    )
    run = compare(experiment, Observer(lambda event: print(event.text) if event.kind == "note" else None))
    return {one["method"]: one["accuracy"]["per_seed"] for one in run.summary["candidates"]}


def main() -> None:
    options = arguments(
        __doc__ or "",
        methods="lora,full_finetuning,p_tuning",
        test="",
        rows=4000,
        test_rows=1000,
        epochs=2.0,
        seeds=3,
        sides="with,without,bf16",
    )
    if not options.test:
        raise SystemExit("--test: give a file of other rows")
    result: dict[str, Any] = {}
    for side in options.sides.split(","):
        with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
            if side == "without":
                stack.enter_context(without_shortcuts())
            result[side] = accuracies(options, "bf16" if side == "bf16" else "fp32", Path(place) / "run")
            report("accuracy", result, options.out)


if __name__ == "__main__":
    main()
