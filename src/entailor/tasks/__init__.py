"""What is asked of a model: label names, one text or two, the metric."""

from entailor.tasks.base import Task

__all__ = ["Task"]
