"""How much room there is, in memory and on disk, and how a number of bytes is read and written."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

from entailor.config.plain import figure

CGROUPS = Path("/sys/fs/cgroup")
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def bytes_of(size: int | str) -> int:
    """Return the number of bytes of ``10GiB``, ``500 MB`` or a plain number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?i?B)?", str(size))
    assert found is not None, size  # settings have been validated
    return int(float(found[1]) * UNITS[found[2] or ""])


def size_text(count: float) -> str:
    """Return bytes in words, to three digits."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{figure(count / one, 3)} {unit}"
    return f"{count:.0f} bytes"


def free_memory_bytes(cgroups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the bytes this process can still take: what the machine has free, or less where a cgroup says so.

    Args:
        cgroups: where the control groups are mounted.
        membership: which of them this process belongs to.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    return max(0, min([free, *_group_rooms(cgroups, membership)]))


def _group_rooms(cgroups: Path, membership: Path) -> list[int]:
    """Return what each control group above this process leaves; the file cache it holds can be given back."""
    rooms = []
    with suppress(OSError):
        for line in membership.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            second = not controllers
            if not second and "memory" not in controllers.split(","):
                continue
            root = cgroups if second else cgroups / "memory"
            limit, used = (
                ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
            )
            here = root / path.lstrip("/")
            for folder in (here, *here.parents):
                if not folder.is_relative_to(root):
                    break
                with suppress(OSError, ValueError):  # no limit is written as "max"; the topmost group has no file
                    most, now = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
                    rooms.append(most - now + _file_cache(folder))
    return rooms


def _file_cache(folder: Path) -> int:
    with suppress(OSError):
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def free_disk_bytes(path: Path) -> int:
    """Return the bytes free where a path stands, or will stand."""
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    import psutil

    return int(psutil.Process().memory_info().rss)
