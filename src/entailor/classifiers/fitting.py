"""Whether a method fits an architecture: tried on one short example before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from entailor.data.example import Example
from entailor.errors import EntailorError, MethodError
from entailor.models.load import Backbone
from entailor.tasks import Task


def probe_example(task: Task) -> Example:
    """Return a short example of the task's shape, without a label."""
    return Example("probe", "one two three", "two three" if task.is_pair else None)


@contextmanager
def fitting(backbone: Backbone, method: str) -> Iterator[None]:
    """Turn what a model raises that cannot be built or run in a method's way into one error.

    Raises:
        MethodError: the method does not fit the architecture.
    """
    try:
        yield
    except (EntailorError, torch.OutOfMemoryError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise MethodError(
            f"{method} does not fit {backbone.folder.name} ({backbone.model.config.model_type}): {error}. "
            f"Leave {method} out, or choose another model"
        ) from error
