"""Opening text files, compressed or not, in any encoding, and saying clearly why one cannot be opened or decoded.

Knows nothing of rows and columns.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, TextIO

from entailor.errors import ConfigError, DataError, near_miss

KINDS_IN_WORDS = (
    ".csv, .tsv, .txt, .jsonl, .ndjson, .json (each also .gz, or alone in a .zip), .parquet, .arrow, .feather or .xlsx"
)
MAX_BYTES = 1 << 30
MAX_ROWS = 10_000_000
MOST_RATIO, SMALL_BYTES = 100, 16 << 20
"""How many times its size a compressed file may unpack to; a text that repeats one line gives a few hundred."""
SAMPLE_BYTES = 1 << 18

_KIND = re.compile(
    r"(\.csv|\.tsv|\.txt|\.jsonl|\.ndjson|\.json)(\.gz)?$|\.(parquet|arrow|feather|xlsx|zip)$", re.IGNORECASE
)
# What looks like a file and is none of ours must not be asked for on the Hub.
_OTHER_KIND = re.compile(r"\.(bz2|docx?|gz|html|npz|pickle|pkl|tar|tgz|xls|xml|xz|ya?ml|zst)$", re.IGNORECASE)
_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_C1 = re.compile("[\x80-\x9f]")
_WESTERN = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüœßÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜŒ–—‘’‚“”„«»‹›…•€£¥¢§©®™°±·×¡¿ªº\xa0")
"""What texts in Western languages hold beyond ASCII."""
_WESTERN_ENCODINGS = ("cp1252", "mac_roman", "cp850")  # of Windows, of older Macs, of DOS
_MISREAD = re.compile(r"[a-zß-öø-ÿœ][À-ÖØ-ÞŒ]|[^\W\d_][‚„‹]|\bÑ\b")
"""A capital within a word, an opening quote behind a letter, a dash of the Mac: read in the wrong one of these."""
_OTHER_CONTENT = {  # how files begin that are no text, or not the text that was meant
    b"\x1f\x8b": ("gzip", "Give it a name that ends in .gz, as in data.csv.gz"),
    b"pk\x03\x04": ("a zip archive or a workbook", "Give it a name that ends in .zip or .xlsx"),
    b"par1": ("Parquet", "Give it a name that ends in .parquet"),
    b"arrow1": ("Arrow", "Give it a name that ends in .arrow"),
    b"version https://git-lfs": ("a pointer of Git LFS in place of the file", "Fetch the file with git lfs pull"),
    b"<!doctype html": ("a web page", "Download the file itself"),
    b"<html": ("a web page", "Download the file itself"),
}
_HIDDEN = re.compile(r"^__MACOSX/|(^|/)\.")


@dataclass(frozen=True)
class FileFormat:
    """What the user says about files, and how much of one is taken.

    Attributes:
        delimiter: between the cells of a text file; None: found in its first line.
        encoding: of text files without a byte order mark; None: UTF-8.
        max_bytes: most bytes that a compressed file may unpack to.
        inside: the file of an archive, or the sheet of a workbook; None: the only one, or the first sheet that fits.
    """

    delimiter: str | None = None
    encoding: str | None = None
    max_bytes: int = MAX_BYTES
    inside: str | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n\0'):
            raise ConfigError(f"data.delimiter: {self.delimiter!r} found, expected one character, such as ; or |")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except (LookupError, ValueError):
                raise ConfigError(
                    f"data.encoding: {self.encoding!r} is no text encoding, expected one such as utf-8 or cp1252"
                ) from None


def kind_of(name: str) -> str | None:
    """Return the suffix that decides how a file is read, without ``.gz``, or None when it is of no known kind."""
    found = _KIND.search(name)
    return found[0].lower().removesuffix(".gz") if found else None


def is_file(source: str) -> bool:
    """Tell whether a source is meant as a file: it exists, or has a file's suffix or a path's form."""
    if "\0" in source:
        raise DataError("NUL byte in a path", path=repr(source), remedy="Check the path")
    if source.startswith((".", "/", "~")) or kind_of(source) or _OTHER_KIND.search(source) or "://" in source:
        return True
    return Path(source).exists() or divided(Path(source))[1] is not None


def divided(path: Path) -> tuple[Path, str | None]:
    """Divide a path that leads into an archive or a workbook, such as ``a.zip/train.csv`` or ``a.xlsx/Sheet2``."""
    for parent in path.parents:
        if parent.suffix.lower() in (".zip", ".xlsx") and not parent.is_dir():
            return parent, path.relative_to(parent).as_posix()
    return path, None


def check_regular(path: Path) -> None:
    """Refuse what would hang or never end.

    Raises:
        DataError: the path is missing, a folder, a named pipe or a device.
    """
    with translated(path):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError
    if not stat.S_ISREG(mode):
        raise DataError("a pipe or a device, expected a file", path=path, remedy="Write its content to a file first")


@contextmanager
def open_text(path: Path, newline: str, form: FileFormat) -> Iterator[TextIO]:
    """Open a text file, with or without byte order mark, packed or not.

    Raises:
        DataError: what `translated` says, while opening or while reading; it unpacks to too many bytes, or begins as no
            text does.
    """
    with _unpacked(path, form) as binary:
        start = binary.peek(64)[:64].lower()
        for begin, (content, remedy) in _OTHER_CONTENT.items():
            if start.startswith(begin):
                raise DataError(f"its content is {content}, whatever its name", path=path, remedy=remedy)
        encoding = _encoding(binary, form)
        try:
            with io.TextIOWrapper(binary, encoding=encoding, newline=newline) as text:
                yield text
        except UnicodeError as error:
            raise _encoding_error(path, form, encoding, error) from None


def zip_member(path: Path, name: str | None = None) -> zipfile.ZipInfo:
    """Return a file in a zip archive.

    Args:
        path: the archive.
        name: the file; None: the only one of a kind that is read, hidden ones aside.

    Raises:
        DataError: it is no archive, is damaged or encrypted, or does not hold that file, or not exactly one.
    """
    with translated(path), zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist() if kind_of(one.filename) and not _HIDDEN.search(one.filename)]
    found = [one for one in members if name is None or one.filename == name]
    if len(found) != 1:
        names = ", ".join(one.filename for one in members[:5])
        problem = f"{len(members)} files in it that can be read ({names}), expected one" if name is None else ""
        tables_first = sorted(members, key=lambda one: kind_of(one.filename) == ".txt")  # a README is none
        remedy = (
            f"Name one: {path}/{tables_first[0].filename}"
            if members
            else f"Give an archive with one of {KINDS_IN_WORDS}"
        )
        raise DataError(
            problem or f"no file {name!r} in it, but {names or 'none that can be read'}", path=path, remedy=remedy
        )
    if found[0].flag_bits & 1:
        raise DataError("encrypted", path=path, remedy="Unpack the archive")
    return found[0]


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what the file system, gzip and zip raise into errors that say what to do.

    Raises:
        DataError: the file is missing, a folder, not permitted, or no whole gzip or zip file.
    """
    try:
        yield
    except EOFError:
        raise DataError(
            "the compressed stream ends too early", path=path, remedy="Fetch or write the file again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        remedy = "Write the file again, or take .gz off its name"
        raise DataError(f"not a gzip file, or a damaged one ({error})", path=path, remedy=remedy) from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        remedy = "Write the file again, or unpack it"
        raise DataError(f"not a zip file, or a damaged one ({error})", path=path, remedy=remedy) from None
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


class _Limited(io.RawIOBase):
    """Counts what is unpacked: a file of a few megabytes may unpack to more than the memory holds."""

    def __init__(self, inner: BinaryIO | gzip.GzipFile | IO[bytes], path: Path, limit: int) -> None:
        self._inner, self._path, self._limit, self._count = inner, path, limit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        with translated(self._path):
            data = self._inner.read(len(buffer))
        self._count += len(data)
        if self._count > self._limit:
            raise too_large(self._path, self._limit)
        buffer[: len(data)] = data
        return len(data)


def too_large(path: object, limit: int) -> DataError:
    """Return the error for a compressed file that unpacks to more than the limit."""
    return DataError(
        f"unpacks to more than {limit:,} bytes",
        path=path,
        remedy="If you trust the file, raise data.max_bytes (predict and evaluate: --max-bytes)",
    )


def _check_ratio(path: Path, form: FileFormat) -> None:
    """Refuse a small file that unpacks to very many times its size before rows are made of it; no text is like that.

    Raises:
        DataError: it does, and data.max_bytes is not set to another number.
    """
    most = max(SMALL_BYTES, MOST_RATIO * path.stat().st_size)
    suffix = path.suffix.lower()
    if form.max_bytes != MAX_BYTES or most >= MAX_BYTES or suffix not in (".gz", ".zip"):
        return
    with translated(path):
        if suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                size = sum(one.file_size for one in archive.infolist())
        else:
            size = 0
            with gzip.open(path) as file:
                while size <= most and (piece := file.read(1 << 20)):
                    size += len(piece)
    if size > most:
        raise too_large(path, most)


@contextmanager
def _unpacked(path: Path, form: FileFormat) -> Iterator[io.BufferedReader]:
    check_regular(path)
    _check_ratio(path, form)
    with ExitStack() as stack:
        with translated(path):
            raw = stack.enter_context(path.open("rb", buffering=0))
        inner: BinaryIO | gzip.GzipFile | IO[bytes]
        suffix = path.suffix.lower()
        limit = form.max_bytes if suffix in (".gz", ".zip") else 1 << 62
        if suffix == ".gz":
            inner = stack.enter_context(gzip.GzipFile(fileobj=raw))
        elif suffix == ".zip":
            member = zip_member(path, form.inside)
            with translated(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                inner = stack.enter_context(archive.open(member))
        else:
            inner = raw
        yield stack.enter_context(io.BufferedReader(_Limited(inner, path, limit), 1 << 18))


def _encoding(binary: io.BufferedReader, form: FileFormat) -> str:
    start = binary.peek(4)[:4]
    return next((name for mark, name in _MARKS if start.startswith(mark)), form.encoding or "utf-8")


def _encoding_error(path: Path, form: FileFormat, encoding: str, error: UnicodeError) -> DataError:
    """Find the first byte that is not in the encoding, and what the file may be instead."""
    advice = "Save the file as UTF-8"
    if not encoding.startswith("utf-8"):
        said = error.reason if isinstance(error, UnicodeDecodeError) else error
        return DataError(
            f"not {encoding} ({said})",
            path=path,
            remedy="Give another --encoding, or save the file as UTF-8",
        )
    offset, others, before = 0, bytearray(), None
    place: tuple[int, int, int] | None = None
    with _unpacked(path, form) as binary:
        for number, line in enumerate(binary, start=1):
            if not line.isascii():
                try:
                    line.decode("utf-8")
                    before = before or number
                except UnicodeDecodeError as wrong:
                    place = place or (number, offset + wrong.start, line[wrong.start])
                    others += line
            offset += len(line)
            if place and (offset > place[1] + SAMPLE_BYTES or len(others) > SAMPLE_BYTES):
                break
    assert place is not None, "the decoder and the second look at the file disagree"
    problem = f"not UTF-8: byte 0x{place[2]:02X} at offset {place[1]}"
    if before is not None:
        return DataError(
            f"{problem}, while row {before} is UTF-8: encodings are mixed",
            path=path,
            row=place[0],
            remedy=f"No --encoding reads both: write row {place[0]} again as UTF-8",
        )
    utf16 = utf16_without_mark(path, form)
    likely = [utf16] if utf16 else likely_encodings(bytes(others[:SAMPLE_BYTES]))
    if likely:
        readings = likely if utf16 else [f"{name} ({first_odd_word(bytes(others), name)!r})" for name in likely]
        problem += f"; it looks like {' or '.join(readings)}"
        best = "the one that reads right, such as " if len(likely) > 1 else ""
        given = f"Give {best}--encoding {likely[0]} (data.encoding={likely[0]})"
        advice = f"{given} and look at the texts, or: save the file as UTF-8"
    return DataError(problem, path=path, row=place[0], remedy=advice)


def likely_encodings(sample: bytes) -> list[str]:
    """Guess the encodings of bytes that are not UTF-8, the likeliest first, at most four.

    Of a few words in one it may be none of them: a reader, shown the words in each, knows more than statistics.
    One that yields control characters is none: Windows-1252 read as ISO 8859-1 decodes without an error.
    """
    from charset_normalizer import from_bytes

    matches = [one for one in from_bytes(sample) if one.encoding != "utf_8" and not _C1.search(str(one))]
    names = [one for one in _WESTERN_ENCODINGS if _is_western(sample, one)]
    return list(dict.fromkeys([*names, *(one.encoding for one in matches)]))[:4]


def first_odd_word(sample: bytes, encoding: str) -> str:
    """Return the first words of bytes that are not ASCII, as they read in an encoding."""
    text = sample.decode(encoding, "replace")
    place = next((number for number, character in enumerate(text) if not character.isascii()), 0)
    found = re.search(r"\w*[^\x00-\x7f]\w*", text[max(0, place - 15) : place + 20])  # a long text is searched for long
    return found.group()[:20] if found else ""


def _is_western(sample: bytes, encoding: str) -> bool:
    """Tell whether bytes make sense in an encoding: dashes, quotes, and a few letters of Western languages in words.

    Many code pages explain a handful of such bytes equally well, and statistics of letters cannot tell them apart.
    """
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        return False
    beyond = [one for one in text if not one.isascii()]
    marked, letters = (sum(map(str.isalpha, part)) for part in (beyond, text))
    # both letters at once are Hungarian ones in Windows-1250
    is_hungarian = {"õ", "û"} <= set(beyond)
    return set(beyond) <= _WESTERN and 5 * marked <= 2 * letters and not is_hungarian and not _MISREAD.search(text)


def utf16_without_mark(path: Path, form: FileFormat) -> str | None:
    """Return the encoding of a file that is UTF-16 without a byte order mark, else None."""
    if form.encoding is not None:
        return None
    with _unpacked(path, form) as binary:
        start = binary.peek(1024)[:1024]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) <= len(start) // 5 or min(even, odd) > len(start) // 20:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"
