"""Ways of adapting, one file each. A file that defines a named :class:`Method` is found; nothing else is edited."""

from entailor.classifiers.base import Classifier, FittedClassifier
from entailor.methods.base import Method, ParameterGroup, Range, TrainedMethod
from entailor.methods.registry import build_method, registered_methods

__all__ = [
    "Classifier",
    "FittedClassifier",
    "Method",
    "ParameterGroup",
    "Range",
    "TrainedMethod",
    "build_method",
    "registered_methods",
]
