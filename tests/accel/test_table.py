"""`python -m entailor.accel` names every shortcut, and says of one that fails why it is not in use."""

import torch

from entailor.accel import __main__ as table


def test_every_shortcut_is_in_use_here_and_one_that_fails_says_why(monkeypatch):
    def broken():
        raise AttributeError("no such name")

    monkeypatch.setattr(table, "REPEATS", 1)
    monkeypatch.setattr(table, "LENGTHS", [4, 9, 9, 12])
    monkeypatch.setattr(table, "WIDTH", 12)
    monkeypatch.setitem(table.SHORTCUTS, "a broken one", lambda: (lambda: torch.ones(2, 1), broken))
    monkeypatch.setitem(table.SHORTCUTS, "another one", lambda: (lambda: torch.ones(2, 1), lambda: torch.zeros(2, 1)))
    *used, failing, other = table.lines()
    assert len(used) == 5
    assert all("in use" in line and "not in use" not in line for line in used)
    assert "not in use: runs without the a broken one, which could not be tried: AttributeError" in failing
    assert "not in use: it gives another result here" in other
