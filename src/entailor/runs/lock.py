"""One process a run folder: who comes second is told who is there and since when.

The lock is the system's own (flock), so a process that is killed leaves none behind; the file beside it only says who.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from entailor.errors import RunError
from entailor.runs.environment import utc_now
from entailor.runs.files import read_json, write_json
from entailor.runs.integrity import disk_trouble
from entailor.runs.ownership import LOCK_FILE, OWNER_FILE, check_run_folder, refuse_links
from entailor.runs.paths import make_folder
from entailor.runs.trial_folder import remove_temporary


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; it is made where it does not exist, and goes again if it stays empty.

    Raises:
        RunError: another process holds it, it cannot be written, or it is somebody else's.
    """
    try:
        check_run_folder(folder)
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        make_folder(folder)
        refuse_links(folder / LOCK_FILE)
        lock = FileLock(folder / LOCK_FILE, timeout=0)
        lock.acquire()
    except Timeout:
        raise RunError(
            f"{folder} is in use by {_owner(folder)}. Wait until it is done, or give another --out"
        ) from None
    except (OSError, NotImplementedError) as error:
        problem = disk_trouble(error) or str(error)
        raise RunError(f"{folder}: cannot be written: {problem}, or give another --out") from None
    try:
        check_run_folder(folder)  # before the lock was held another program may have come
        remove_temporary(folder)
        with suppress(OSError):  # it only serves the message of another process
            write_json(folder / OWNER_FILE, {"pid": os.getpid(), "host": platform.node(), "since": utc_now()})
        yield
    finally:
        with suppress(OSError):
            (folder / OWNER_FILE).unlink(missing_ok=True)
            if [path.name for path in folder.iterdir()] == [LOCK_FILE]:  # nothing came of it
                (folder / LOCK_FILE).unlink()  # while it is held: who opened it meanwhile sees that it is gone
                for place in made:
                    place.rmdir()
        lock.release()


def _owner(folder: Path) -> str:
    """Return who holds the folder, and since when, in words."""
    try:
        owner = read_json(folder / OWNER_FILE)
        seconds = (datetime.now(UTC) - datetime.fromisoformat(owner["since"])).total_seconds()
        return f"process {owner['pid']} on {owner['host']}, for {_age(seconds)}"
    except (RunError, KeyError, TypeError, ValueError, ArithmeticError):
        return "another process"


def _age(seconds: float) -> str:
    """Return an age in its largest unit; a clock that was set back gives no age below zero."""
    seconds = max(0.0, seconds)
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
