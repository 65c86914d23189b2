"""The default data: film-review snippets with human ratings, and three other sources that show domain shift.

From the source archive of vaderSentiment 3.3.2 (MIT licence; Hutto & Gilbert 2014), fetched from the user's package
index on first use. None of its code is run, and nothing of its text ships with Entailor.
"""

from __future__ import annotations

import csv
import html
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from entailor.config.parts import DataSettings
from entailor.data.example import content_id
from entailor.errors import ConfigError, DataError, near_miss
from entailor.runs.cache_place import cache_folder
from entailor.runs.files import write_text
from entailor.runs.package_index import ReleaseFile, fetch_release_file

PREFIX: Final = "bundled:"
ARCHIVE: Final = ReleaseFile(
    project="vadersentiment",
    name="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    size=2_466_783,
)
INNER: Final = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
TABLES: Final = {
    "film": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "amazon": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
    "nyt": "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
    "tweets": "hutto_ICWSM_2014/tweets_GroundTruth.txt",
}
MEMBER_BYTES: Final = 16 * 2**20
LEAST_RATING: Final = 1.0
"""Mean of twenty ratings from -4 to 4; below this in size people did not agree that there is a sentiment."""
EXTERNAL_EXAMPLES: Final = 250
"""Of each external table, drawn by a hash of the text: enough for an interval of six points to either side, which shows
a drop under domain shift; the first run is short, and a decoder reads each text."""
DEFAULTS: Final = {"validation_size": 250, "test_size": 1_000, "max_train_examples": 500}


def with_bundled(settings: DataSettings) -> DataSettings:
    """Return the settings with the default data written out where no train file is given.

    Raises:
        ConfigError: a validation or test file is given, but none to train on.
    """
    if settings.train is not None:
        return settings
    given = [key for key in ("validation", "test") if getattr(settings, key) is not None]
    if given:
        raise ConfigError(f"data.{given[0]} without data.train. Give a train file too, or neither")
    sizes = {key: size for key, size in DEFAULTS.items() if key not in settings.model_fields_set}
    if settings.cv is not None:
        sizes = {key: size for key, size in sizes.items() if key == "max_train_examples"}
    others = () if settings.resampled else tuple(f"{PREFIX}{name}" for name in TABLES if name != "film")
    external = settings.external or others
    return settings.model_copy(update={"train": f"{PREFIX}film", "external": external, **sizes})


def located(source: str) -> str:
    """Return the path of a bundled table in the cache, making it the first time; any other source as it is.

    Raises:
        ConfigError: there is no such table.
        DownloadError: the archive cannot be fetched.
        DataError: the archive does not hold what was expected.
    """
    if not source.startswith(PREFIX):
        return source
    name = source.removeprefix(PREFIX)
    if name not in TABLES:
        raise ConfigError(
            f"{source!r}: no such bundled data.{near_miss(name, TABLES)} Known: "
            f"{', '.join(PREFIX + known for known in TABLES)}"
        )
    cache = cache_folder()
    part = "" if name == "film" else f"-{EXTERNAL_EXAMPLES}"  # another size is another file
    table = cache / "data" / ARCHIVE.sha256[:16] / f"{name}{part}.csv"
    if not table.is_file():
        content = table_text(fetch_release_file(ARCHIVE, cache), name)
        write_text(table, content)
    return str(table)


def table_text(archive: Path, name: str) -> str:
    """Return one table as CSV with id, text and label.

    Args:
        archive: the source archive, already checked.
        name: a key of `TABLES`.

    Raises:
        DataError: a member is missing or is no plain file, or a line has another form.
    """
    written = io.StringIO()
    inner = _member(archive.read_bytes(), INNER, archive)
    lines = enumerate(_member(inner, TABLES[name], archive).decode("utf-8").split("\n"), 1)
    where = f"{archive.name}/{TABLES[name]}"
    found = [labelled for number, line in lines for labelled in _labelled(line, where, number)]
    if name != "film":
        found = sorted(found, key=lambda cells: content_id(cells[1], None))[:EXTERNAL_EXAMPLES]
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(("id", "text", "label"))
    rows.writerows(found)
    return written.getvalue()


def _labelled(line: str, where: str, number: int) -> Iterator[tuple[str, str, str]]:
    """Yield id, text and label of a line, unless its mean rating is near zero."""
    if not line.strip():
        return
    cells = line.split("\t")
    try:
        identifier, rating, text = cells[0], float(cells[1]), html.unescape(cells[2]).strip()
    except (IndexError, ValueError):
        raise DataError("id, rating and text were expected", path=where, row=number) from None
    if text and abs(rating) >= LEAST_RATING:
        yield identifier, text, "positive" if rating > 0 else "negative"


def _member(content: bytes, name: str, archive: Path) -> bytes:
    """Read one plain file of a tar archive in memory; nothing is ever unpacked to the disk."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as opened:
            for member in opened:
                path = PurePosixPath(member.name)
                if member.name != name:
                    continue
                if path.is_absolute() or ".." in path.parts or not member.isreg() or member.size > MEMBER_BYTES:
                    break
                stream = opened.extractfile(member)
                return stream.read(MEMBER_BYTES) if stream else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"not a whole archive ({error})", path=archive, remedy="Delete it and run again") from None
    raise DataError(f"no plain file {name} in it", path=archive, remedy="Delete it and run again")
