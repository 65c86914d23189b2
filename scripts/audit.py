"""Holds the locked dependencies against known vulnerabilities, with pip-audit, and says when that was not done.

python scripts/audit.py               # a finding is an error; a service that does not answer is one line
python scripts/audit.py --required    # a service that does not answer is an error as well
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
SECONDS = 60


def ask() -> tuple[Sequence[Mapping[str, Any]], str]:
    """Return what pip-audit says of each locked package, and its last words; nothing where it got no answer."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "8"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return [], f"no answer within {SECONDS} seconds"
    try:
        found: Sequence[Mapping[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], (done.stderr.strip().splitlines() or ["no answer"])[-1]
    return found, ""


def judge(found: Sequence[Mapping[str, Any]], words: str, *, required: bool) -> tuple[list[str], int]:
    """Return the lines to print and the exit code.

    Args:
        found: one entry a package, as pip-audit gives them.
        words: why there are none.
        required: whether an audit that was not done is an error.
    """
    audited = [one for one in found if "skip_reason" not in one]
    lines = [
        f"audit: {one['name']} {one['version']}: {flaw['id']}, fixed in "
        f"{', '.join(flaw['fix_versions']) or 'no version'}"
        for one in audited
        for flaw in one["vulns"]
    ]
    if not audited:
        why = words or f"the service knows none of the {len(found)} locked packages"
        return [f"audit: NOT DONE: {why}. Run it again where https://pypi.org answers"], int(required)
    left = len(found) - len(audited)
    unknown = f", {left} unknown to the service and not audited" if left else ""
    return [*lines, f"audit: {len(audited)} packages audited{unknown}, {len(lines)} known vulnerabilities"], int(
        bool(lines)
    )


def main() -> int:
    """Run the audit and print what came out."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--required", action="store_true", help="fail where the service does not answer")
    lines, code = judge(*ask(), required=options.parse_args().required)
    sys.stdout.write("\n".join(lines) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
