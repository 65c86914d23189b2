"""The long search of fuzzing, guided by coverage: each target for some seconds, and JSON of what came out.

    PYTHONPATH=src:. .venv/bin/python tests/long/fuzzing.py --seconds 40 --out fuzzing.json

Needs atheris. Not collected by pytest. Each target runs in a process of its own with a limit of memory; an input that
is no `EntailorError`'s, takes longer than 20 seconds or more than 4 GB is a crash. Exits with 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent.parent
LONGEST_INPUT = 4096
SEEDS = {
    "readers": [b"\x00text,label\na,b\n", b'\x02{"text": "a", "label": "b"}\n', b'\x03[{"text": "a"}]'],
    "configuration": [b"methods:\n  lora: {r: 2}\nseeds: 2\n\nlora.r=4\ndata.tune_size=0.2", b"data: {train: a.csv}"],
    "templates": [b"{{ premise }} {{ hypothesis }} {{ label }}", b"{% for a in labels %}{{ a }}{% endfor %}"],
    "run_folders": [b'\x00{"version": 2, "files": {}}', b'\x03{"rows": [], "labels": [], "num_test": 1}'],
    "command_lines": [b"\x00--run\x00x\x00--input\x00y", b"\x04a\x00b", b"\x06--methods\x00lora\x00lora.r=8"],
}


def search(target: str, folder: Path, seconds: int) -> None:
    """Fuzz one target in this process; atheris ends it."""
    import atheris

    with atheris.instrument_imports(include=["entailor"]):
        from tests.fuzz import attempt

    for number, seed in enumerate(SEEDS[target]):
        (folder / f"seed-{number}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", "-timeout=20", "-rss_limit_mb=4096", "-seed=1"]
    atheris.Setup(
        [sys.argv[0], *limits, f"-artifact_prefix={folder}/crash-", str(folder)], lambda d: attempt(target, d)
    )
    atheris.Fuzz()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=40, help="for each target")
    options.add_argument("--out", type=Path)
    options.add_argument("--target", choices=SEEDS, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.target:
        search(chosen.target, chosen.folder, chosen.seconds)
        return 0
    report: dict[str, dict[str, object]] = {}
    for target in SEEDS:
        with TemporaryDirectory() as folder:
            words = ["--target", target, "--folder", folder, "--seconds", str(chosen.seconds)]
            begin = time.monotonic()
            done = subprocess.run(
                [sys.executable, __file__, *words],
                cwd=ROOT,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
            runs = re.findall(r"#(\d+)\s", done.stderr)
            report[target] = {
                "inputs": max(map(int, runs), default=0),
                "seconds": round(time.monotonic() - begin, 1),
                "crashes": int(done.returncode != 0),
            }
            if done.returncode != 0:
                report[target]["said"] = done.stderr[-3000:]
        sys.stderr.write(f"{target}: {json.dumps(report[target])}\n")
    text = json.dumps(report, indent=2)
    if chosen.out:
        chosen.out.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 1 if any(one["crashes"] for one in report.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
