"""How what two runs left behind differs, what follows from times aside."""

from __future__ import annotations

import re
from typing import Any

from tests.kill import differing

COSTS = re.compile(r"^/comparison\.json/(recommendation\b|candidates\[\d+\]/pareto)")


def differing_results(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the keys at which two outcomes differ but for what costs decide."""
    return [line for line in differing(one, other) if not COSTS.match(line)]
