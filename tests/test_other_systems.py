"""What Linux alone has is taken away, one thing at a time: the work goes on without it."""

import ast
import builtins
import ctypes
import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

from entailor.accel import allocator
from entailor.engine import meter
from entailor.runs import documents, environment, files
from entailor.shipping import prover

SRC = Path(__file__).parent.parent / "src"
LINUX_AND_MAC = {"fcntl", "grp", "pwd", "resource", "termios", "pty", "syslog"}
NOT_ON_WINDOWS = {"fork", "getuid", "geteuid", "getpgid", "killpg", "setsid", "mkfifo", "chown", "sched_getaffinity"}
SIGNALS_EVERYWHERE = {"SIGINT", "SIGTERM", "SIG_IGN", "SIG_DFL"}


@pytest.fixture
def no_proc(monkeypatch):
    """Nothing below /proc and /sys, as on macOS and Windows."""
    plain = {name: getattr(Path, name) for name in ("read_text", "write_text", "exists")}

    def hidden(name):
        def call(self, *args, **kwargs):
            if self.as_posix().startswith(("/proc/", "/sys/")):
                if name == "exists":
                    return False
                raise FileNotFoundError(self)
            return plain[name](self, *args, **kwargs)

        return call

    for name in plain:
        monkeypatch.setattr(Path, name, hidden(name))


@pytest.fixture
def no_resource(monkeypatch):
    """The module `resource` cannot be imported, as on Windows."""
    import psutil  # noqa: F401 - which itself needs it here, and not there

    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "resource":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "resource", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError], ids=lambda kind: kind.__name__)
def test_a_c_library_that_gives_nothing_back(error, monkeypatch):
    def no_library(name):
        raise error("no library without a name")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("glibc", "2.99"))
    assert meter.reset_peak_memory() in (True, False)
    assert not allocator.keep_freed_memory([torch.empty(allocator.RETURNED_FROM_BYTES // 4)])


def test_peak_memory_without_proc(no_proc):
    assert meter.reset_peak_memory() is False
    assert meter.peak_memory_bytes() > 10 * 2**20


def test_peak_memory_without_proc_and_resource(no_proc, no_resource):
    assert meter.peak_memory_bytes() > 10 * 2**20
    assert prover.peak_memory_bytes() is None


def test_the_processor_and_free_memory_without_proc(no_proc):
    from entailor.models.memory import free_memory_bytes

    assert environment.cpu_name()
    assert free_memory_bytes() > 0


def test_memory_of_the_machine_without_sysconf(monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert environment._memory_bytes() is None


def test_files_are_opened_with_what_windows_knows(tmp_path, monkeypatch):
    for name in ("O_CLOEXEC", "O_NONBLOCK"):
        monkeypatch.delattr(os, name, raising=False)
    spec = importlib.util.spec_from_file_location("documents_there", documents.__file__)
    there = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(there)
    (tmp_path / "a.json").write_bytes(b'{"a": 1}\r\n')
    assert there.read_bytes(tmp_path / "a.json") == b'{"a": 1}\r\n'


@pytest.fixture(scope="module")
def nodes():
    """Every node of every source, with its place and whether it stands inside of `try`."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {inner for node in ast.walk(tree) if isinstance(node, ast.Try) for inner in ast.walk(node)}
        found += [(node, f"{path}:{getattr(node, 'lineno', 0)}", node in guarded) for node in ast.walk(tree)]
    assert len(found) > 100_000
    return found


def test_nothing_of_one_system_is_imported_or_called_without_a_way_out(nodes):
    for node, place, guarded in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and not guarded:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not LINUX_AND_MAC & {name.partition(".")[0] for name in names}, place
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            called = f"{node.value.id}.{node.attr}"
            assert called not in {f"os.{name}" for name in NOT_ON_WINDOWS}, f"{place}: {called}"
            if node.value.id == "signal" and node.attr.startswith("SIG"):
                assert node.attr in SIGNALS_EVERYWHERE, f"{place}: {called}"


def test_text_is_written_with_the_same_line_ends_everywhere(nodes):
    for node, place, _ in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            mode = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            as_text = node.func.attr == "open" and str(mode) in ("w", "a", "x", "w+")
            if as_text or node.func.attr == "write_text":
                given = {keyword.arg for keyword in node.keywords}
                assert given & {"newline", None}, f"{place}: newline is missing"


def test_a_file_that_another_program_has_open_is_replaced_as_soon_as_it_is_closed(tmp_path, monkeypatch):
    refusals = [PermissionError("in use"), PermissionError("in use")]
    plain = Path.replace

    def replace(self, target):
        if refusals:
            raise refusals.pop()
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(files, "REPLACE_TRIES", 3)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    files.write_text(tmp_path / "a.txt", "one\ntwo\n")
    assert (tmp_path / "a.txt").read_bytes() == b"one\ntwo\n"
    refusals.extend(PermissionError("for good") for _ in range(3))
    with pytest.raises(PermissionError, match="for good"):
        files.write_text(tmp_path / "a.txt", "three")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
