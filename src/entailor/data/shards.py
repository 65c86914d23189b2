"""Which files a folder or a glob stands for: all shards of one table, in order, and never a part of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from entailor.data.files import KINDS_IN_WORDS, file_error, kind_of
from entailor.errors import DataError

SPLITS_FILE = "dataset_dict.json"
_SHARD = re.compile(r"^(.*?)[-_.]?(\d+)-of-(\d+)(?=\.)")
_SPARK_PART = re.compile(r"^(part-)(?:[rm]-)?\d{5}[^.]*")  # a number, the id of the job, and the file of a task

TEXT_FILES_REMEDY = "Write the texts into one table, such as a CSV with the columns text and label"


def has_splits(path: Path) -> bool:
    """Tell whether a path is a saved `DatasetDict`."""
    return (path / SPLITS_FILE).is_file()


def shards_of(path: Path, split: str | None) -> list[Path] | None:
    """Return the files of a folder or a glob, or None where the path is that of one file.

    Raises:
        DataError: nothing is there, a shard is missing, or the files are of more than one table.
    """
    if path.is_dir():
        if has_splits(path):
            names = _listed(path / SPLITS_FILE, "splits")
            if split in names:
                return shards_of(path / str(split), None)
            remedy = f"Give the folder of one, such as {path / (names[0] if names else 'train')}"
            asked = "expected one" if split is None else f"but no split {split!r}"
            raise DataError(f"several splits ({', '.join(names)}), {asked}", path=path, remedy=remedy)
        if (path / "state.json").is_file():
            return [path / name for name in _listed(path / "state.json", "_data_files")]
        found = [child for child in path.iterdir() if kind_of(child.name) and _is_shown(child)]
        if (path / "_temporary").exists():
            problem = "a folder that Spark has not finished writing: it holds _temporary"
            raise DataError(problem, path=path, remedy="Let the job end, or run it again")
        if not found and (by_value := sorted(child.name for child in path.glob("*=*") if child.is_dir())):
            problem = f"a table that was divided by the values of a column ({', '.join(by_value[:5])})"
            raise DataError(
                problem, path=path, remedy="Write it without partitionBy, so that the column is in the files"
            )
        if not found:
            raise DataError("a folder without a file that can be read", path=path, remedy=f"Give {KINDS_IN_WORDS}")
    elif not path.exists() and re.search(r"[*?\[]", str(path)):
        root = Path(path.anchor)
        found = [child for child in root.glob(str(path.relative_to(root))) if _is_shown(child)]
        if not found:
            raise DataError("no file matches", path=path, remedy="Check the pattern")
    elif not path.exists():
        raise file_error(path, FileNotFoundError())
    else:
        whole = _SHARD.match(path.name)
        if whole and int(whole[3]) > 1:
            parts = path.with_name(f"{path.name[: whole.start(2)]}*{path.name[whole.end(2) :]}")
            problem = f"one of {int(whole[3])} parts of a table"
            raise DataError(problem, path=path, remedy=f"Give all of them: {parts}")
        return None
    return _of_one_table(path, sorted(found, key=_natural))


def _is_shown(path: Path) -> bool:
    """Tell a file of data from what systems and Spark leave beside it, such as ._a.csv, .a.csv.crc and _SUCCESS."""
    return path.is_file() and not path.name.startswith(".") and bool(kind_of(path.name) or path.name[0] != "_")


def _of_one_table(source: Path, files: list[Path]) -> list[Path]:
    tables = {re.sub(r"[-_.]?\d+(-of-\d+)?(?=\.)", "", _SPARK_PART.sub(r"\1", file.name)) for file in files}
    if source.is_dir() and len(tables) > 1:
        problem = f"a folder with files of several tables ({', '.join(sorted(tables)[:5])})"
        with_columns = [file for file in files if kind_of(file.name) != ".txt"]
        remedy = f"Give one of them: {with_columns[0]}, or a glob" if with_columns else TEXT_FILES_REMEDY
        raise DataError(problem, path=source, remedy=remedy)
    for file in files:
        shard = _SHARD.match(file.name)
        if shard and (count := sum(bool(_SHARD.match(one.name)) for one in files)) != int(shard[3]):
            raise DataError(f"{count} of {int(shard[3])} parts are there", path=source, remedy="Fetch the missing ones")
    return files


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _listed(path: Path, key: str) -> list[str]:
    """Read the names in a file of `datasets.save_to_disk`; none may lead out of its folder."""
    try:
        names = [one if key == "splits" else one["filename"] for one in json.loads(path.read_text("utf-8"))[key]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"a damaged file of save_to_disk ({error!r})", path=path, remedy="Save it again") from None
    if not all(isinstance(name, str) and name and Path(name).name == name for name in names):
        raise DataError("names a file outside its folder", path=path, remedy="Save the data set again")
    return names
