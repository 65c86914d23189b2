import errno
import hashlib
import os
from pathlib import Path

import pytest

from entailor.errors import ModelError
from entailor.models.resolve import cache as cache_module
from entailor.models.resolve.cache import file_sha256, new_folder, read_source, require_room
from entailor.runs.cache_place import cache_folder


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("ENTAILOR_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "entailor"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "entailor"


def test_a_failure_leaves_nothing_behind(tmp_path):
    def stop_half_way():
        with new_folder(tmp_path / "target") as folder:
            (folder / "half").write_text("x")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert list(tmp_path.iterdir()) == []


def test_a_finished_folder_stands_under_its_name_and_is_readable_by_others(tmp_path):
    with new_folder(tmp_path / "a" / "target") as folder:
        (folder / "file").write_text("x")
        (folder / "file").chmod(0o600)
        assert not (tmp_path / "a" / "target").exists()
    assert (tmp_path / "a" / "target" / "file").read_text() == "x"
    assert (tmp_path / "a" / "target" / "file").stat().st_mode & 0o777 == (tmp_path / "a").stat().st_mode & 0o666
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["target"]


def test_the_quicker_of_two_processes_wins(tmp_path):
    with new_folder(tmp_path / "target") as folder:
        (folder / "file").write_text("second")
        with new_folder(tmp_path / "target") as quicker:
            (quicker / "file").write_text("first")
    assert (tmp_path / "target" / "file").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "cannot be written .Permission denied")]
)
def test_storage_failures_say_what_to_do(tmp_path, number, words):
    with pytest.raises(ModelError, match=words) as caught, new_folder(tmp_path / "target"):
        raise OSError(number, os.strerror(number))
    assert "ENTAILOR_CACHE" in str(caught.value)


def test_a_cache_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(ModelError, match="cannot be written"), new_folder(tmp_path / "cache" / "packages" / "x"):
        pass


def test_work_that_would_not_fit_is_refused(tmp_path):
    require_room(tmp_path, 1)
    with pytest.raises(ModelError, match=r"1000000000.0 GB are needed and .* GB are free"):
        require_room(tmp_path, 10**18)


def test_the_hash_of_a_large_file_is_remembered_until_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "REMEMBERED_FROM_BYTES", 4)
    monkeypatch.setattr(cache_module, "SETTLED_AFTER_NS", -(10**12))
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    first = file_sha256(file, tmp_path / "cache")
    assert first == hashlib.sha256(b"first").hexdigest()
    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", None)  # a second reading would fail
        assert file_sha256(file, tmp_path / "cache") == first
    file.write_bytes(b"other")
    os.utime(file, ns=(0, 1))
    assert file_sha256(file, tmp_path / "cache") == hashlib.sha256(b"other").hexdigest()


def test_a_damaged_note_of_a_hash_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "REMEMBERED_FROM_BYTES", 4)
    monkeypatch.setattr(cache_module, "SETTLED_AFTER_NS", -(10**12))
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    digest = file_sha256(file, tmp_path / "cache")
    (note,) = (tmp_path / "cache" / "hashes").iterdir()
    note.write_text("{")
    assert file_sha256(file, tmp_path / "cache") == digest


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_a_damaged_source_note_says_to_delete_the_folder(tmp_path: Path, text):
    if text is not None:
        (tmp_path / "source.json").write_text(text)
    with pytest.raises(ModelError, match="Delete this folder"):
        read_source(tmp_path)


def test_a_change_within_a_tick_of_the_clock_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "REMEMBERED_FROM_BYTES", 4)
    file, cache = tmp_path / "weights", tmp_path / "cache"
    frozen = dict.fromkeys(("st_mtime_ns", "st_ctime_ns"), 10**18)

    def coarse(stat: os.stat_result) -> dict[str, int]:
        return {"size": stat.st_size, "ino": stat.st_ino, **frozen}  # a clock that never moves

    monkeypatch.setattr(cache_module, "_state", coarse)
    for content in (b"first", b"other"):
        file.write_bytes(content)
        assert file_sha256(file, cache) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("replace", [False, True])
def test_a_change_with_the_old_time_put_back_is_noticed(tmp_path, monkeypatch, replace):
    monkeypatch.setattr(cache_module, "REMEMBERED_FROM_BYTES", 4)
    monkeypatch.setattr(cache_module, "SETTLED_AFTER_NS", -(10**12))
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"first")
    before = file.stat()
    file_sha256(file, cache)
    if replace:
        (tmp_path / "new").write_bytes(b"other")
        (tmp_path / "new").replace(file)
    else:
        file.write_bytes(b"other")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert file_sha256(file, cache) == hashlib.sha256(b"other").hexdigest()


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "REMEMBERED_FROM_BYTES", 4)
    monkeypatch.setattr(cache_module, "SETTLED_AFTER_NS", -(10**12))
    file, cache = tmp_path / "weights", tmp_path / "cache"
    file.write_bytes(b"first")
    digest = hashlib.file_digest

    def change_meanwhile(opened, name):
        found = digest(opened, name)
        file.write_bytes(b"other")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "file_digest", change_meanwhile)
        file_sha256(file, cache)
    assert file_sha256(file, cache) == hashlib.sha256(b"other").hexdigest()
