"""The audit says what was audited, and does not pass for done where it was not."""

import importlib.util
from pathlib import Path

spec = importlib.util.spec_from_file_location("audit", Path(__file__).parent.parent / "scripts" / "audit.py")
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

SOUND = {"name": "a", "version": "1", "vulns": []}
FLAWED = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


def test_a_finding_is_an_error():
    lines, code = audit.judge([SOUND, FLAWED, UNKNOWN], "", required=False)
    assert code == 1
    assert lines == [
        "audit: b 2: CVE-1, fixed in 3",
        "audit: 2 packages audited, 1 unknown to the service and not audited, 1 known vulnerabilities",
    ]
    assert audit.judge([SOUND], "", required=True) == (["audit: 1 packages audited, 0 known vulnerabilities"], 0)


def test_no_answer_is_said_and_fails_only_where_it_is_required():
    for found, words in (([], "ConnectionError: no route"), ([UNKNOWN, UNKNOWN], "")):
        for required in (False, True):
            (line,), code = audit.judge(found, words, required=required)
            assert line.startswith("audit: NOT DONE: ")
            assert code == int(required)
