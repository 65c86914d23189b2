"""A Ray that runs tasks one after the other in this process, so that what a driver does can be tested without it."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class RayError(Exception):
    pass


class WorkerCrashedError(RayError):
    pass


class TaskCancelledError(RayError):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


class Reference:
    """A task that runs when it is waited for, or an object that is there."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call, self.done, self.value, self.error = call, False, None, None

    def run(self, death: Exception | None) -> None:
        try:
            self.value = self.call()
            if death is not None:
                raise death
        except RayError as error:
            self.error = error
        except Exception as error:
            self.error = RayTaskError(error)
        self.done = True


class Remote:
    def __init__(self, ray: StandIn, target: Any) -> None:
        self.ray, self.target = ray, target

    def options(self, **options: Any) -> Remote:
        self.ray.options.append(options)
        return self

    def remote(self, *arguments: Any) -> Any:
        values = [one.value if isinstance(one, Reference) and one.done else one for one in arguments]
        if isinstance(self.target, type):
            return Actor(self.target(*values))
        return Reference(lambda: self.target(*values))


class Actor:
    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Reference:
            reference = Reference(lambda: getattr(self._instance, name)(*arguments))
            reference.run(None)
            return reference

        return SimpleNamespace(remote=call)


class StandIn(ModuleType):
    """The module `ray`.

    Attributes:
        there: resources of each node.
        deaths: what the next tasks end with when they have run, in order; None: they end well.
        options: of every task and actor.
        calls: of a function's worker before it ends; 0: as many as there are.
        cancelled: tasks that were cancelled before they ran.
    """

    def __init__(self) -> None:
        super().__init__("ray")
        self.__spec__ = ModuleSpec("ray", None)
        self.there: list[dict[str, float]] = [{"CPU": 2.0, "memory": 1e9}]
        self.deaths: deque[Exception | None] = deque()
        self.options: list[dict[str, Any]] = []
        self.calls: list[int] = []
        self.cancelled = 0
        self.exceptions = ModuleType("ray.exceptions")
        for kind in (RayError, WorkerCrashedError, TaskCancelledError, RayTaskError):
            setattr(self.exceptions, kind.__name__, kind)
        strategy = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
        self.util = SimpleNamespace(scheduling_strategies=strategy)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> StandIn:
        monkeypatch.setitem(sys.modules, "ray", self)
        monkeypatch.setitem(sys.modules, "ray.exceptions", self.exceptions)
        monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", self.util.scheduling_strategies)
        return self

    def is_initialized(self) -> bool:
        return True

    def shutdown(self) -> None:
        pass

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": one} for one in self.there]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")

    def remote(self, *, max_calls: int | None = None, **_: Any) -> Callable[[Any], Remote]:
        self.calls += [] if max_calls is None else [max_calls]
        return lambda target: Remote(self, target)

    def put(self, value: Any) -> Reference:
        reference = Reference(lambda: value)
        reference.run(None)
        return reference

    def wait(self, references: list[Reference], num_returns: int, timeout: float | None) -> Any:
        waiting = [one for one in references if not one.done]
        if waiting and timeout != 0:
            waiting[0].run(self.deaths.popleft() if self.deaths else None)
        return [one for one in references if one.done], [one for one in references if not one.done]

    def get(self, reference: Reference) -> Any:
        if reference.error is not None:
            raise reference.error
        return reference.value

    def cancel(self, reference: Reference) -> None:
        if not reference.done:
            self.cancelled += 1
            reference.error, reference.done = TaskCancelledError(), True
