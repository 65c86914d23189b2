"""One event stream, many sinks: opened before the work starts where asked for, and told of every trial as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from entailor.errors import ConfigError
from entailor.events import Event, Observer, PointLogged, TrialFinished
from entailor.runs.layout import RunFolder
from entailor.runs.ownership import TRACKING_FOLDER, refuse_links
from entailor.runs.record import SPLIT, CurvePoint, RunRecord

if TYPE_CHECKING:
    from entailor.config.parts import TrackingSettings


class TrialLog(Protocol):
    """One trial in a tool, while it is open."""

    def point(self, point: CurvePoint) -> None:
        """Keep a point of the curve, at once."""
        ...

    def end(self, record: RunRecord | None, place: Path) -> None:
        """Keep what came out, and close.

        Args:
            record: complete or failed; None where the trial was broken off, or is started again.
            place: the trial's folder.
        """
        ...


class Sink(Protocol):
    """A tool that keeps trials."""

    def begin(self, record: RunRecord, place: Path, attempt: int) -> TrialLog:
        """Open a trial.

        Args:
            record: who it is and its settings, still without results.
            place: the trial's folder.
            attempt: how often its training was started again.
        """
        ...

    def finish(self, summary: Mapping[str, Any], folder: RunFolder) -> None:
        """Keep the comparison; `summary` is the content of comparison.json."""
        ...


def check_tracking(settings: TrackingSettings) -> None:
    """Refuse a tool that is not installed, before anything is read or trained.

    Raises:
        ConfigError: naming the key, the package and the command that installs it.
    """
    for name in type(settings).model_fields:
        if getattr(settings, name) and find_spec(name) is None:
            raise ConfigError(f"tracking.{name}: {name} is not installed. Run: pip install 'entailor[track]'")


class Tracked:
    """An observer for the sinks as well: a sink that fails is dropped with one warning, and the run goes on.

    A context: what is still open when it ends was broken off.

    Args:
        observer: who else is told.
        folder: of the run.
        sinks: by the key that asked for them.
    """

    def __init__(self, observer: Observer, folder: RunFolder, sinks: Mapping[str, Sink]) -> None:
        self.told, self.folder, self.sinks = observer, folder, dict(sinks)
        self.open: dict[Path, _Open] = {}
        self.observer = Observer(self._event)

    def __enter__(self) -> Tracked:
        return self

    def __exit__(self, *raised: object) -> None:
        for place in list(self.open):
            self._end(place, None)

    def _event(self, event: Event) -> None:
        self.told.on_event(event)
        if isinstance(event.data, PointLogged):
            self._point(event.data)
        elif isinstance(event.data, TrialFinished) and not event.data.reused:
            record = event.data.record
            place = self._place(record)
            if place not in self.open:
                self._begin(record, place, 0)
            self._end(place, record)

    def _place(self, record: RunRecord) -> Path:
        split = self.folder.split(record.provenance.get(SPLIT, 0))
        return split.trial(record.model, record.name, record.seed)

    def _point(self, logged: PointLogged) -> None:
        place = self._place(logged.record)
        if place in self.open and self.open[place].attempt != logged.attempt:
            self._end(place, None)
        if place not in self.open:
            self._begin(logged.record, place, logged.attempt)
        logs = self.open[place].logs
        self._each(lambda name, sink: logs[name].point(logged.point))

    def _begin(self, record: RunRecord, place: Path, attempt: int) -> None:
        logs: dict[str, TrialLog] = {}
        self.open[place] = _Open(attempt, logs)
        self._each(lambda name, sink: logs.update({name: sink.begin(record, place, attempt)}))

    def _end(self, place: Path, record: RunRecord | None) -> None:
        logs = self.open.pop(place).logs
        self._each(lambda name, sink: logs[name].end(record, place))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Hand the comparison to every sink."""
        self._each(lambda name, sink: sink.finish(summary, self.folder))

    def _each(self, use: Callable[[str, Sink], None]) -> None:
        for name, sink in list(self.sinks.items()):
            try:
                use(name, sink)
            except Exception as error:  # whatever a server or a disk of somebody else does, results are not lost for it
                del self.sinks[name]
                self.told.warn(f"tracking.{name}: {type(error).__name__}: {error}. Nothing more is tracked there")


@dataclass(frozen=True)
class _Open:
    """A trial that is under way: how often it was started again, and where it is kept, by the name of the sink."""

    attempt: int
    logs: Mapping[str, TrialLog]


def tracked(settings: TrackingSettings, folder: RunFolder, observer: Observer) -> Tracked:
    """Open the sinks that are asked for.

    Raises:
        ConfigError: a tool cannot be opened, as with a store that does not exist.
        RunError: the folder for it is a symbolic link.
    """
    return Tracked(observer, folder, dict(_opened(settings, folder)))


def _opened(settings: TrackingSettings, folder: RunFolder) -> Iterator[tuple[str, Sink]]:
    """Each tool is imported where it is asked for, and nowhere else."""
    own = folder.path.resolve() / TRACKING_FOLDER
    refuse_links(own)
    if settings.tensorboard:
        from entailor.tracking.tensorboard_sink import TensorBoardSink

        yield "tensorboard", TensorBoardSink(own / "tensorboard")
    if settings.mlflow:
        from entailor.tracking.mlflow_sink import MLflowSink

        yield "mlflow", MLflowSink(settings.mlflow, folder.path.resolve())
    if settings.wandb:
        from entailor.tracking.wandb_sink import WandbSink

        yield "wandb", WandbSink(settings.wandb, own)
    if settings.trackio:
        from entailor.tracking.trackio_sink import TrackioSink

        yield "trackio", TrackioSink(settings.trackio, own / "trackio")
