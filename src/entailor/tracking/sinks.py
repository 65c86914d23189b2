"""One event stream, many sinks: who is asked for is opened before the work starts, and told of every finished trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from entailor.errors import ConfigError
from entailor.events import Event, Observer, TrialFinished
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord

if TYPE_CHECKING:
    from entailor.config.parts import TrackingSettings


class Sink(Protocol):
    """A tool that keeps trials."""

    def trial(self, record: RunRecord, place: Path) -> None:
        """Keep a trial, complete or failed; `place` is its folder."""
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

    Args:
        observer: who else is told.
        folder: of the run.
        sinks: by the key that asked for them.
    """

    def __init__(self, observer: Observer, folder: RunFolder, sinks: Mapping[str, Sink]) -> None:
        self.told, self.folder, self.sinks = observer, folder, dict(sinks)
        self.observer = Observer(self._event)

    def _event(self, event: Event) -> None:
        self.told.on_event(event)
        if isinstance(event.data, TrialFinished) and not event.data.reused:
            record = event.data.record
            place = event.data.place or self.folder.trial(record.model, record.name, record.seed)
            self._each(lambda sink: sink.trial(record, place))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Hand the comparison to every sink."""
        self._each(lambda sink: sink.finish(summary, self.folder))

    def _each(self, use: Any) -> None:
        for name, sink in list(self.sinks.items()):
            try:
                use(sink)
            except Exception as error:  # whatever a server or a disk of somebody else does, results are not lost for it
                del self.sinks[name]
                self.told.warn(f"tracking.{name}: {type(error).__name__}: {error}. Nothing more is tracked there")


def tracked(settings: TrackingSettings, folder: RunFolder, observer: Observer) -> Tracked:
    """Open the sinks that are asked for.

    Raises:
        ConfigError: a tool cannot be opened, as with a store that does not exist.
    """
    return Tracked(observer, folder, dict(_opened(settings, folder)))


def _opened(settings: TrackingSettings, folder: RunFolder) -> Iterator[tuple[str, Sink]]:
    """Each tool is imported where it is asked for, and nowhere else."""
    own = folder.path.resolve() / "tracking"
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
