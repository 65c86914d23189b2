"""Writes the first picture of README.md from a report: the plot of test accuracy, readable on any background.

Run ``python scripts/picture.py runs/demo`` after ``make demo``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "first-run.svg"
INK, PAPER = "#222222", "#ffffff"


def main(run: str) -> int:
    """Take the plot out of the report, with colours and a background of its own; return the exit code."""
    report = (Path(run) / "report.html").read_text(encoding="utf-8")
    found = re.search(r'<svg role="img" aria-label="Test accuracy by candidate".*?</svg>', report, re.DOTALL)
    if found is None:
        sys.stderr.write(f"{run}/report.html: no plot of test accuracy in it. Run make demo first\n")
        return 1
    opening, rest = found.group().replace("currentColor", INK).split(">", 1)
    style = f'style="background: {PAPER}; font-family: sans-serif"'
    PICTURE.parent.mkdir(exist_ok=True)
    background = f'<rect width="100%" height="100%" fill="{PAPER}"/>'
    PICTURE.write_text(f"{opening} {style}>\n{background}{rest}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
