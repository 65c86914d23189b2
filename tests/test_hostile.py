"""The corpus of hostile inputs holds: one clear error each, in bounded time and memory, and never a traceback."""

from __future__ import annotations

import json
from collections import Counter

from tests.forked import forked
from tests.hostile import CASES


def test_every_hostile_input_ends_in_one_clear_error():
    done = forked("tests.hostile.__main__", "main", ["--quick"])
    assert done.out.startswith("{"), done.err[-3000:]
    assert json.loads(done.out) == {}


def test_every_family_is_there_and_no_case_stands_twice():
    assert {case.family for case in CASES} == {"config", "overrides", "run", "data", "model", "template"}
    assert not [name for name, count in Counter((case.family, case.name) for case in CASES).items() if count > 1]
