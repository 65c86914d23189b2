"""U1: how long `entailor --help` takes, process start included."""

from __future__ import annotations

import subprocess
import sys
import time

from measure import arguments, report, spread

GOAL = 0.4


def main() -> None:
    options = arguments(__doc__ or "", needs_data=False)
    times, pages = [], set()
    for _ in range(options.repeats + 1):
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "entailor", "--help"], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - begin)
        pages.add(done.stdout)
    assert len(pages) == 1
    assert "compare" in pages.pop()
    report("U1", {"goal_seconds": GOAL, "seconds": spread(times[1:])}, options.out)


if __name__ == "__main__":
    main()
