"""Opening UTF-8 text files, gzipped or not, and saying clearly why one cannot be opened or decoded.

Knows nothing of rows and columns.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from entailor.errors import DataError, near_miss

KINDS_IN_WORDS = ".csv, .tsv, .jsonl, .ndjson, .json (each also .gz) or .parquet"
UTF8_MARK = b"\xef\xbb\xbf"

_KIND = re.compile(r"(\.csv|\.tsv|\.jsonl|\.ndjson|\.json)(\.gz)?$|\.parquet$", re.IGNORECASE)
# What looks like a file and is none of ours must not be asked for on the Hub.
_OTHER_KIND = re.compile(
    r"\.(arrow|bz2|docx?|feather|gz|html|npz|pickle|pkl|tar|tgz|txt|xlsx?|xml|xz|ya?ml|zip|zst)$", re.IGNORECASE
)


def kind_of(name: str) -> str | None:
    """Return the suffix that decides how a file is read, without ``.gz``, or None when it is of no known kind."""
    found = _KIND.search(name)
    return found[0].lower().removesuffix(".gz") if found else None


def is_file(source: str) -> bool:
    """Tell whether a source is meant as a file: it exists, or has a file's suffix or a path's form."""
    if source.startswith((".", "/", "~")) or kind_of(source) or _OTHER_KIND.search(source):
        return True
    return Path(source).exists()


@contextmanager
def open_text(path: Path, newline: str) -> Iterator[TextIO]:
    """Open a UTF-8 file, with or without byte order mark, gzipped or not.

    Raises:
        DataError: what `translated` says, while opening or while reading.
    """
    with translated(path), path.open("rb", buffering=0) as raw:
        binary = _unpacked(path, raw)
        if binary.peek(len(UTF8_MARK))[: len(UTF8_MARK)] == UTF8_MARK:
            binary.read(len(UTF8_MARK))
        with io.TextIOWrapper(binary, encoding="utf-8", newline=newline) as text:
            yield text


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what the file system, gzip and the decoder raise into errors that say what to do.

    Raises:
        DataError: the file is missing, a folder, not permitted, not UTF-8, or no whole gzip file.
    """
    try:
        yield
    except UnicodeDecodeError:
        raise _encoding_error(path) from None
    except EOFError:
        raise DataError("the gzip stream ends too early", path=path, remedy="Fetch or write the file again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        remedy = "Write the file again, or take .gz off its name"
        raise DataError(f"not a gzip file, or a damaged one ({error})", path=path, remedy=remedy) from None
    except OSError as error:
        raise file_error(path, error) from None


def file_error(path: Path, error: OSError) -> DataError:
    """Return the error for a file that cannot be opened, with the nearest name in its folder."""
    if isinstance(error, IsADirectoryError):
        inside = sorted(child.name for child in path.iterdir() if kind_of(child.name))[:5]
        found = f" (in it: {', '.join(inside)})" if inside else ""
        return DataError(f"a folder, expected a file{found}", path=path, remedy=f"Give one file: {KINDS_IN_WORDS}")
    if isinstance(error, FileNotFoundError):
        if not path.parent.is_dir():
            return DataError("no such file: its folder does not exist", path=path, remedy="Check the path")
        close = near_miss(path.name, (child.name for child in path.parent.iterdir()))
        return DataError("no such file", path=path, remedy=close.strip() or "Check the path")
    if isinstance(error, PermissionError):
        return DataError("no permission to read it", path=path, remedy="Check the file's owner and mode")
    return DataError(f"cannot be read ({error.strerror or error})", path=path)


def empty_file(path: Path) -> DataError:
    """Return the error for a file without a single column name."""
    return DataError("the file is empty", path=path, remedy="Give a file with a header, or named keys, and rows")


def _unpacked(path: Path, raw: io.FileIO) -> io.BufferedReader | gzip.GzipFile:
    return gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else io.BufferedReader(raw, 1 << 20)


def _encoding_error(path: Path) -> DataError:
    """Find the first byte that is not UTF-8."""
    offset = 0
    with path.open("rb", buffering=0) as raw:
        binary = _unpacked(path, raw)
        for number, line in enumerate(binary, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                found = line[error.start]
                utf16 = number == 1 and error.start == 0 and found in (0xFE, 0xFF)
                return DataError(
                    f"not UTF-8: byte 0x{found:02X} at offset {offset + error.start}",
                    path=path,
                    row=number,
                    remedy=f"Save the file as UTF-8, e.g. with iconv -f {'UTF-16' if utf16 else 'LATIN1'} -t UTF-8",
                )
            offset += len(line)
    return DataError("not UTF-8", path=path, remedy="Save the file as UTF-8")
