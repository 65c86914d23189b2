"""Where a command writes what the user asked for: never over what it reads, and never silently over somebody's file.

A file may be written again without being asked where it is, to the byte, one that Entailor wrote; the cache remembers
checksums of these, and nothing else of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import glob, has_magic
from pathlib import Path

from entailor.errors import OutputError
from entailor.runs.cache_place import cache_folder
from entailor.runs.files import atomic_path
from entailor.runs.integrity import file_sha256
from entailor.runs.ownership import belongs_to_run, enclosing_export
from entailor.runs.paths import user_path

Source = str | Path | None
ELSEWHERE = "Give another place to write"


def check_output(output: str | Path, inputs: Iterable[Source], *, overwrite: bool) -> Path:
    """Say where an output file goes, or why it may not.

    Args:
        output: as the user named it.
        inputs: files and folders the command reads; what is no path is skipped.
        overwrite: whether a file that Entailor did not write may be replaced.

    Returns:
        The place with links followed.

    Raises:
        OutputError: it is an input under any name, lies among the files of a run or in a folder that is read, is no
            regular file, or stands there already.
    """
    target = resolved(output)
    opened = str(user_path(output).absolute()).startswith(("/dev/std", "/dev/fd/", "/proc/"))
    if opened or (target.exists() and not target.is_file()):  # what is opened already cannot be replaced
        raise OutputError(f"{output}: no regular file. Give the name of a file")
    refuse_inputs(output, target, inputs)
    if target.is_file() and not overwrite and not _remembered(target):
        raise OutputError(
            f"{output}: exists already, and Entailor did not write it, or it was changed since. "
            "Give another --output, or add --overwrite (in Python overwrite=True)"
        )
    return target


@contextmanager
def output_file(output: str | Path, inputs: Iterable[Source] = (), *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary file that becomes the output when all of it is there.

    Takes and raises what `check_output` does; it is asked again at the end, since the work between may take long.
    """
    inputs = list(inputs)
    target = check_output(output, inputs, overwrite=overwrite)
    with atomic_path(target) as temporary:
        yield temporary
        check_output(output, inputs, overwrite=overwrite)
        with suppress(OSError):  # a cache that cannot be written costs a question, not the output
            place = _memory(file_sha256(temporary))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()


def resolved(output: str | Path) -> Path:
    """Return the place of an output with links followed, or raise OutputError where none can be written."""
    place = user_path(output)
    if str(place).startswith("~"):
        raise OutputError(f"{output}: there is no such user. {ELSEWHERE}")
    try:
        return place.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(f"{output}: not a path that can be written ({error}). Give the name of a file") from None


def refuse_inputs(output: str | Path, target: Path, inputs: Iterable[Source]) -> None:
    """Raise OutputError where an output lies among the files of a run, or is or lies in what is read."""
    if belongs_to_run(target):
        raise OutputError(f"{output}: lies among the files of a run. {ELSEWHERE}")
    if (export := enclosing_export(target)) is not None:
        raise OutputError(
            f"{output}: lies in the exported folder {export}, whose manifest lists all it holds. {ELSEWHERE}"
        )
    for source in inputs:
        if source is None:
            continue
        with suppress(OSError, RuntimeError, ValueError):  # a name of the Hub, or a path that is met when it is read
            for read in _matching(user_path(source)):
                within = next((place for place in (read, *read.parents) if place.is_file()), read)  # a.zip/train.csv
                if within == target or (within.exists() and target.exists() and within.samefile(target)):
                    raise OutputError(f"{output}: the same file as the input {source}. {ELSEWHERE}")
                if read.is_dir() and (belongs_to_run(target, read) or (target.exists() and read in target.parents)):
                    raise OutputError(f"{output}: lies in {source}, which is read. {ELSEWHERE}")
            if _matches(target, user_path(source).absolute()):
                raise OutputError(f"{output}: would be read with {source} the next time. {ELSEWHERE}")


def _matches(target: Path, pattern: Path) -> bool:
    """Tell whether a file would be one of those that a pattern stands for."""
    is_pattern = has_magic(pattern.name) and not pattern.exists()
    return is_pattern and target.parent == pattern.parent.resolve() and target.match(pattern.name)


def _matching(source: Path) -> list[Path]:
    """Return a path with links followed, or what matches it where it is a pattern of shards."""
    if source.exists() or not has_magic(str(source)):
        return [source.resolve()]
    return [Path(found).resolve() for found in glob(str(source), recursive=True)]  # noqa: PTH207 - may be absolute


def _remembered(path: Path) -> bool:
    try:
        return _memory(file_sha256(path)).is_file()
    except OSError:
        return False


def _memory(digest: str) -> Path:
    return cache_folder() / "outputs" / digest
