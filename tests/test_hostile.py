"""The corpus of hostile inputs holds: one clear error each, in bounded time and memory, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.hostile import CASES

ROOT = Path(__file__).parent.parent


def test_every_hostile_input_ends_in_one_clear_error():
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile", "--quick"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stderr[-3000:]
    assert json.loads(done.stdout) == {}


def test_every_family_is_there_and_no_case_stands_twice():
    assert {case.family for case in CASES} == {"config", "overrides", "run", "data", "model", "template"}
    assert not [name for name, count in Counter((case.family, case.name) for case in CASES).items() if count > 1]
