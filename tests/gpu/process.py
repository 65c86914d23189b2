"""Starts the process with the pretend accelerator, which must not be this one: torch keeps such a device for good."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST = 3600


def ask(part: str, folder: Path) -> Any:
    """Return what a part of `tests.gpu.child` found.

    Args:
        part: quick, whole, mistakes or examples.
        folder: for models and the package's cache.
    """
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "ENTAILOR_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.child", part, str(folder)],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
