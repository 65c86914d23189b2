"""Fetches one file of a release from the user's own package index, checked by SHA-256, without running any of its code.

pip would run the setup script of a source archive to learn its metadata, and takes only the wheel of this platform;
here the file is read from the index's list (PEP 503 and 691) by its name.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlparse
from urllib.request import url2pathname

from entailor.errors import DownloadError
from entailor.runs.redaction import without_secrets

USUAL_INDEX = "https://pypi.org/simple"
ACCEPTED = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
LIST_BYTES = 64 * 2**20
SECONDS = 60  # without a byte

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReleaseFile:
    """A file of a release on PyPI.

    Attributes:
        project: normalised name (PEP 503).
        name: of the file.
        sha256: what its content must have.
        size: in bytes; nothing longer is read.
    """

    project: str
    name: str
    sha256: str
    size: int


def fetch_release_file(file: ReleaseFile, cache: Path) -> Path:
    """Return a copy in the cache whose SHA-256 is right, fetching it the first time.

    Args:
        file: which one.
        cache: the cache folder; the copy stands in ``files/``.

    Raises:
        DownloadError: no index has it, none can be reached, or what came is another file.
    """
    target = cache / "files" / f"{file.sha256[:16]}-{file.name}"
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == file.sha256:
        return target
    troubles = []
    for place in (*_find_links(), *_indexes()):
        try:
            content = _from_place(place, file)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; another index may do
            troubles.append(f"{place}: {error}")
            continue
        if content is None:
            troubles.append(f"{place}: has no {file.name}")
        elif hashlib.sha256(content).hexdigest() != file.sha256:
            troubles.append(f"{place}: its {file.name} has another SHA-256 than {file.sha256}, and was not used")
        else:
            _keep(content, target)
            return target
    raise DownloadError(
        without_secrets(
            f"{file.name}: cannot be fetched. {'; '.join(troubles)}. Check the network and `pip config list`, or put "
            f"the file into a folder and name that in PIP_FIND_LINKS"
        )
    )


def _keep(content: bytes, target: Path) -> None:
    scratch = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(content)
        scratch.replace(target)
    except OSError as error:
        raise DownloadError(
            f"{target}: cannot be written ({error.strerror}). Set ENTAILOR_CACHE to a folder you may write to"
        ) from None
    finally:
        scratch.unlink(missing_ok=True)


def _from_place(place: str, file: ReleaseFile) -> bytes | None:
    """Return the file as one index or folder has it, or None."""
    if not urlparse(place).scheme.startswith(("http", "file")):  # a folder of PIP_FIND_LINKS
        local = Path(place) / file.name
        return local.read_bytes() if local.is_file() else None
    page = f"{place.rstrip('/')}/{file.project}/"
    content, kind, page = _read(page, LIST_BYTES)
    links = dict(_links(content, kind, page))
    if file.name not in links:
        return None
    logger.info("fetching %s", file.name)
    return _read(links[file.name], file.size)[0]


def _links(content: bytes, kind: str, page: str) -> Iterator[tuple[str, str]]:
    """Yield name and address of each file of an index page."""
    import json

    if "json" in kind:
        for entry in json.loads(content)["files"]:
            yield str(entry["filename"]), urljoin(page, str(entry["url"]))
        return
    parser = _Anchors()
    parser.feed(content.decode("utf-8", "replace"))
    for href in parser.found:
        address = urldefrag(urljoin(page, href)).url
        yield unquote(urlparse(address).path).rpartition("/")[2], address


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _read(address: str, most: int) -> tuple[bytes, str, str]:
    """Return content, type and final address of an http(s) or file address.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than `most`, or of another scheme.
    """
    scheme = urlparse(address).scheme
    if scheme == "file":
        path = Path(url2pathname(urlparse(address).path))
        return (path / "index.html" if path.is_dir() else path).read_bytes(), "text/html", address
    if scheme not in ("http", "https"):
        raise ValueError(f"an address of {scheme!r} is not read")
    import requests

    verify = _pip_settings().get("cert") or True
    with requests.get(address, headers={"Accept": ACCEPTED}, timeout=SECONDS, stream=True, verify=verify) as answer:
        answer.raise_for_status()
        content = bytearray()
        for part in answer.iter_content(2**16):
            content += part
            if len(content) > most:
                raise ValueError(f"longer than the {most:,} bytes expected")
        return bytes(content), answer.headers.get("Content-Type", ""), answer.url


def _indexes() -> list[str]:
    settings = _pip_settings()
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        return []
    return [*settings.get("index-url", USUAL_INDEX).split(), *settings.get("extra-index-url", "").split()]


def _find_links() -> list[str]:
    places = _pip_settings().get("find-links", "").split()
    return [place for place in places if not urlparse(place).scheme.startswith("http")]


def _pip_settings() -> dict[str, str]:
    """Return what pip is configured to use; the environment goes before `download`, and that before `global`."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(  # noqa: S603 - a list without a shell
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    found: dict[str, str] = {}
    for section in ("global", "download", ":env:"):
        for line in done.stdout.splitlines():  # nothing where pip is missing: the usual index then
            match = re.fullmatch(rf"{re.escape(section)}\.([a-z-]+)=(['\"].*['\"])", line.strip())
            if match:
                found[match[1]] = str(ast.literal_eval(match[2]))
    return found
