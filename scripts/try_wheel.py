"""Builds the wheel, installs it into a bare environment, and walks the path of a stranger with it, timed.

python scripts/try_wheel.py                    # words alone, so no model is fetched
python scripts/try_wheel.py --methods majority,bag_of_words,linear_probe --torch torch==2.13.0+cpu

A command that fails ends the script with its output. Everything happens in a temporary folder; --keep leaves it there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
THREE_LINES = """\
from entailor import Comparison
predictor = Comparison.read("runs/first").best.predictor()
print(predictor.predict(["Where is my order 4711?"])[0].label)
"""
QUEUES = {"delivery", "billing", "account", "complaint"}
MOST_WHEEL_BYTES = 2_000_000


def bare(place: Path) -> dict[str, str]:
    """Return the environment of a stranger: nothing of the tree the wheel was built from, and no model fetched yet."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**kept, "ENTAILOR_CACHE": str(place / "cache")}


def run(what: str, *words: str | Path, cwd: Path) -> str:
    """Run a command, say how long it took, and return its standard output."""
    started = time.monotonic()
    done = subprocess.run(words, cwd=cwd, env=bare(cwd), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"{what}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    tell(what, f"{time.monotonic() - started:.1f} s")
    return done.stdout


def tell(what: str, figure: str) -> None:
    """Print a line of the result."""
    sys.stdout.write(f"{what:44}{figure}\n")
    sys.stdout.flush()


def check(fits: bool, what: str) -> None:
    """End the script where something is not as it must be."""
    if not fits:
        raise SystemExit(what)


def wheel_of(place: Path) -> Path:
    """Build the wheel and look into it: the package, what it needs beside code, and nothing else."""
    run(
        "wheel built",
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        place,
        ROOT,
        cwd=place,
    )
    (wheel,) = place.glob("entailor-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    odd = [name for name in names if not name.startswith(("entailor/", "entailor-"))]
    check(not odd, f"{wheel.name} holds {odd}")
    check(
        {"entailor/py.typed", "entailor/report/templates/report.html.j2"} <= set(names),
        f"{wheel.name}: files are missing",
    )
    size = wheel.stat().st_size
    check(size < MOST_WHEEL_BYTES, f"{wheel.name}: {size:,} bytes, at most {MOST_WHEEL_BYTES:,} were expected")
    tell("size of the wheel", f"{size / 1000:.0f} kB, {len(names)} files")
    return wheel


def served_answer(command: Path, cwd: Path) -> str:
    """Start the server on a free port of this machine, ask it one text, and stop it."""
    words = [command, "serve", "first=runs/first", "--port", "0"]
    server = subprocess.Popen(words, cwd=cwd, env=bare(cwd), stderr=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert server.stderr is not None
        line = next((line for line in server.stderr if '"listening"' in line), None)
        check(line is not None, "the server did not start")
        body = json.dumps({"model": "first", "inputs": ["Where is my order 4711?"]})
        url = f"{json.loads(str(line))['url']}/v1/classify"
        curl = ("curl", "--silent", "--fail", "--noproxy", "*", "--header", "Content-Type: application/json")
        return run("one question by curl", *curl, "--data", body, url, cwd=cwd)
    finally:
        server.terminate()
        server.wait(60)


def walk(place: Path, methods: str, torch: str | None) -> None:
    """Install, compare, classify, serve."""
    wheel, home = wheel_of(place), place / "bare"
    run("environment made", sys.executable, "-m", "venv", home, cwd=place)
    python, entailor = home / "bin" / "python", home / "bin" / "entailor"
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    if torch:
        run(f"pip install {torch}", *pip, "install", "--quiet", torch, cwd=place)
    run("pip install entailor", *pip, "install", "--quiet", wheel, cwd=place)
    installed = json.loads(run("pip list", *pip, "list", "--format", "json", cwd=place))
    tell("packages of a plain install", str(len({one["name"] for one in installed} - {"pip", "setuptools"})))
    run("entailor --help, first time", entailor, "--help", cwd=place)
    run("entailor --help", entailor, "--help", cwd=place)
    check("missing" not in run("entailor env --check", entailor, "env", "--check", cwd=place).split("excel")[0], "core")
    run("messages.csv written", python, ROOT / "examples" / "customer_messages.py", "messages.csv", cwd=place)
    data = ("--train", "messages.csv", "--columns", "text=message,label=queue", "--out", "runs/first")
    run("entailor compare", entailor, "compare", *data, "--methods", methods, cwd=place)
    label = run("three lines of Python", python, "-c", THREE_LINES, cwd=place).strip()
    check(label.lower() in QUEUES, f"{label!r} is no queue")
    run("pip install 'entailor[serve]'", *pip, "install", "--quiet", f"{wheel}[serve]", cwd=place)
    started = time.monotonic()
    check("delivery" in served_answer(entailor, place), "no served answer")
    tell("served answer", f"{time.monotonic() - started:.1f} s")


def main(arguments: Sequence[str]) -> None:
    """Read the words and walk."""
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    words.add_argument("--methods", default="majority,bag_of_words")
    words.add_argument("--torch", help="a build of PyTorch to install first, as for a machine without a GPU")
    words.add_argument("--keep", action="store_true", help="leave the folder")
    chosen = words.parse_args(arguments)
    place = Path(tempfile.mkdtemp(prefix="entailor-wheel-"))
    started = time.monotonic()
    try:
        walk(place, chosen.methods, chosen.torch)
        tell("all of it", f"{(time.monotonic() - started) / 60:.1f} min")
    finally:
        if chosen.keep:
            tell("kept in", str(place))
        else:
            shutil.rmtree(place)


if __name__ == "__main__":
    main(sys.argv[1:])
