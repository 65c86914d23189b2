"""Which classifiers are served, by name; they come and go while the server runs."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakSet

from entailor.errors import ConfigError, RunError
from entailor.serving.adapters import AdapterLane, AdapterScorer, NotSharedError, ProofFailedError
from entailor.serving.batching import Lane
from entailor.serving.lanes import PredictorLane
from entailor.shipping.predictor import ClassifierScorer, Predictor

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"


class OutsideError(ConfigError):
    """A client's path leads out of the folder from which classifiers may be loaded."""


@dataclass(frozen=True)
class Served:
    """A classifier that answers requests.

    Attributes:
        name: by which requests call it.
        predictor: labels, shape, temperature.
        lane: where its inputs are batched.
        model: which classifier of the lane.
    """

    name: str
    predictor: Predictor
    lane: Lane
    model: Any = None


class Registry:
    """The classifiers of a server. Loading goes on beside answering, one classifier at a time.

    Args:
        trust_remote_code: run code that comes with base models, where they were trained so.
    """

    def __init__(self, *, trust_remote_code: bool = False) -> None:
        self.trust_remote_code = trust_remote_code
        self._served: dict[str, Served] = {}
        self._bases: WeakSet[AdapterLane] = WeakSet()  # a base goes with the last classifier over it
        self._changing = Lock()

    def __iter__(self) -> Iterator[Served]:
        return iter(tuple(self._served.values()))

    def __len__(self) -> int:
        return len(self._served)

    def get(self, name: str) -> Served | None:
        """Return the classifier of this name."""
        return self._served.get(name)

    def load(self, name: str, path: str | Path) -> Served:
        """Load a run's recommended candidate, a trial or an exported folder, and serve it.

        Raises:
            ConfigError: the name is taken, or no name.
            RunError: there is no classifier, or it is damaged.
        """
        check_name(name)
        with self._one_at_a_time(name):
            if name in self._served:
                raise ConfigError(f"{name!r} is served already. Unload it first, or give another name (NAME=PATH)")
            predictor = self._read(path)
            try:
                served = self._share(name, predictor)
            except ProofFailedError:
                served, predictor = None, self._read(path)
            if served is None:
                served = Served(name, predictor, PredictorLane(predictor))
            gc.collect()  # models are full of cycles, and another copy of the base may be in one
            self._served[name] = served
        return served

    def _read(self, path: str | Path) -> Predictor:
        return Predictor.load(path, trust_remote_code=self.trust_remote_code)

    def _share(self, name: str, predictor: Predictor) -> Served | None:
        """Return the classifier over a base that is loaded already, or as the first over its own; None: by itself."""
        scorer = predictor.scorer
        if not isinstance(scorer, ClassifierScorer):
            return None
        for lane in [*self._bases, None]:
            try:
                if lane is None:
                    lane = AdapterLane(scorer.classifier, scorer.batch_tokens)  # noqa: PLW2901
                    adapter = lane.begin()
                    self._bases.add(lane)
                else:
                    adapter = lane.add(scorer.classifier)
            except NotSharedError as error:
                if lane is None and isinstance(error, ProofFailedError):
                    raise
                continue
            predictor.scorer = AdapterScorer(lane, adapter)  # what was loaded with it is freed
            return Served(name, predictor, lane, adapter)
        return None

    def unload(self, name: str) -> bool:
        """Stop serving a classifier; what was accepted for it is still answered. False where there is none."""
        return self._served.pop(name, None) is not None

    @contextmanager
    def _one_at_a_time(self, name: str) -> Iterator[None]:
        if not self._changing.acquire(blocking=False):
            raise RunError(f"another classifier is being loaded. Load {name!r} when that is done")
        try:
            yield
        finally:
            self._changing.release()


def check_name(name: str) -> None:
    """Refuse a name that cannot stand in a request or a metric.

    Raises:
        ConfigError: it cannot.
    """
    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"{name[:100]!r}: a name of up to 100 letters, digits, dots, hyphens and underscores was expected. "
            "Give one with NAME=PATH"
        )


def name_and_path(word: str) -> tuple[str, str]:
    """Return what ``NAME=PATH`` or ``PATH`` says; without a name it is that of the folder.

    Raises:
        ConfigError: it is no path.
    """
    name, equals, path = word.partition("=")
    if equals and re.fullmatch(NAME, name):
        return name, path
    try:
        return Path(word).resolve().name, word
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{word}: not a path ({error}). Give the folder of a run, a trial or an export") from None


def path_below(path: str, folder: Path) -> Path:
    """Return a client's path below the folder from which classifiers may be loaded.

    Raises:
        OutsideError: it leads outside.
    """
    found = (folder / path.replace("\0", "/")).resolve()
    if "\0" in path or not found.is_relative_to(folder.resolve()):
        raise OutsideError("the path leads out of the folder from which classifiers may be loaded (--models-folder)")
    return found
