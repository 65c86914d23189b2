"""Runs the tutorials: every command of a page in an empty folder, and its output into the page.

Run ``python docs/tutorial.py`` after a change of what commands print. tests/test_tutorials.py runs the same and holds
that the pages still tell what happens, whatever the figures.

In a page a ``console`` block holds commands behind ``$ `` and what they print; a ``pycon`` block is a doctest; a
comment ``<!-- save as NAME -->`` in front of a block makes a file of it. A command that ends in ``&`` goes on until
the page ends.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from entailor.cli.app import main as entailor

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
_BLOCK = re.compile(r"^(?:<!-- save as (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
_FIGURE = re.compile(r"[-<]?\d[\d,.]*(?: (?:s|ms|min|h|B|kB|MB|GB|k|M)\b)?|[\u2013\u2212]")


class Shell:
    """The few commands of the tutorials, in one folder; `entailor` runs in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._server, self._port = folder, None, ""

    def run(self, command: str) -> str:
        """Return what a command prints, results and remarks in the order they come."""
        line, _, limit = command.partition(" | head -")
        first, *words = shlex.split(line)
        if first == "entailor" and words[-1] == "&":
            return self._serve(words[:-1])
        does = {"entailor": self._entailor, "python": self._python, "head": self._head, "curl": self._curl}[first]
        lines = does(words).splitlines()
        return "\n".join(lines[: int(limit)] if limit else lines)

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(60)
            self._server.stderr.close()

    def _entailor(self, words: list[str]) -> str:
        printed = io.StringIO()
        with _arguments(words), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                entailor()
            except SystemExit as ended:
                if ended.code:
                    raise RuntimeError(f"exit code {ended.code}: {printed.getvalue()}") from None
        return printed.getvalue()

    def _python(self, words: list[str]) -> str:
        with _arguments(words[1:]):
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        return ""

    def _head(self, words: list[str]) -> str:
        count, name = words
        return "\n".join((self.folder / name).read_text("utf-8").splitlines()[: -int(count)])

    def _serve(self, words: list[str]) -> str:
        command = [sys.executable, "-m", "entailor", *words[: words.index("--port")], "--port", "0"]
        paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths}
        self._server = subprocess.Popen(command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True)
        line = next(line for line in self._server.stderr if '"listening"' in line)
        self._port = json.loads(line)["url"].rsplit(":", 1)[1]
        return ""

    def _curl(self, words: list[str]) -> str:
        address = next(word for word in words if word.startswith("http://127.0.0.1:"))
        body, kind = words[words.index("-d") + 1], words[words.index("-H") + 1].partition(": ")
        request = urllib.request.Request(
            re.sub(r":\d+/", f":{self._port}/", address), body.encode(), {kind[0]: kind[2]}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as answer:
            return answer.read().decode()


@contextlib.contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, [sys.argv[0], *words]
    try:
        yield
    finally:
        sys.argv = before


def run_page(text: str, folder: Path) -> str:
    """Run a page in a folder and return it with what its commands print now.

    Raises:
        RuntimeError: a command failed, or an example of Python gave something else than the page says.
    """
    shell, names = Shell(folder), {}

    def again(block: re.Match[str]) -> str:
        content = block["text"]
        if block["file"]:
            (folder / block["file"]).write_text(content, "utf-8")
        if block["kind"] == "pycon":
            test = doctest.DocTestParser().get_doctest(content, names, "page", None, 0)
            said = io.StringIO()
            if doctest.DocTestRunner().run(test, out=said.write, clear_globs=False).failed:
                raise RuntimeError(said.getvalue())
            names.update(test.globs)
        if block["kind"] == "console":
            commands = re.findall(r"^\$ (.*(?:\\\n.*)*)", content, re.M)
            told = [
                f"$ {command}\n{shell.run(command.replace(chr(92) + chr(10), ' ')).rstrip()}" for command in commands
            ]
            content = "\n".join(one.rstrip() for one in told) + "\n"
        head = f"<!-- save as {block['file']} -->\n" if block["file"] else ""
        return f"{head}```{block['kind']}\n{content}```"

    with contextlib.chdir(folder):
        try:
            return _BLOCK.sub(again, text)
        finally:
            shell.close()


def without_figures(text: str) -> list[str]:
    """Return the lines of a page with every figure as # and every run of blanks as one."""
    return [re.sub(r"[ -]{2,}", " ", _FIGURE.sub("#", line.replace("°", ""))).strip() for line in text.splitlines()]


if __name__ == "__main__":
    for page in PAGES:
        with tempfile.TemporaryDirectory() as place:
            page.write_text(run_page(page.read_text("utf-8"), Path(place)), "utf-8")
        sys.stdout.write(f"{page.relative_to(ROOT)} written\n")
