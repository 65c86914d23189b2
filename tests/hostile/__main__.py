"""The command line of the corpus."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.forked import blank_figure
from tests.hostile import CASES
from tests.hostile.running import command, limit_memory, problem
from tests.hostile.runs import over_run, run_copy, sound_run

from entailor.report import plots


def main(words: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--family")
    options.add_argument("--quick", action="store_true")
    chosen = options.parse_args(words)
    os.environ.update(HF_HUB_OFFLINE="1", COLUMNS="200")
    with tempfile.TemporaryDirectory() as name:  # libraries are loaded before anything counts
        for words in over_run(run_copy(Path(name))):
            command(words)
    if chosen.quick:
        plots._svg = blank_figure
    limit_memory()
    wrong = {}
    for number, case in enumerate(CASES):
        if chosen.family in (None, case.family):
            with tempfile.TemporaryDirectory() as name:
                if found := problem(case, Path(name), number if chosen.quick else None):
                    wrong[f"{case.family}: {case.name}"] = found
    shutil.rmtree(sound_run())
    sys.stdout.write(json.dumps(wrong, indent=2) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
