"""Code from the Hub through the package `kernels`: where it is installed, nothing of Entailor imports or asks it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import make_examples, write_csv
from tests.forked import ROOT, forked

from entailor.cli import app as cli
from entailor.errors import ModelError
from entailor.runs.files import read_json
from entailor.runs.network import check_no_hub_kernels
from entailor.shipping.runtimes.torch_runtime import Runtime

PLANTED = """
from pathlib import Path

MARK = Path(__file__).parent / "was-used"
MARK.write_text("imported")


class Anything:
    def __init__(self, *args, **kwargs): ...
    def __call__(self, *args, **kwargs): return args[0] if args else self
    def __getattr__(self, name): return Anything()


def get_kernel(*args, **kwargs):
    MARK.write_text(f"asked for {args}")
    raise RuntimeError("code of the Hub would run now")


def __getattr__(name):
    return Anything
"""
EVERY_COMMAND = """
import os, shlex, subprocess, sys
from importlib.util import find_spec
import entailor
assert find_spec("kernels") is None and os.environ["USE_HUB_KERNELS"] == "NO"
child = "import entailor, importlib.util; assert importlib.util.find_spec('kernels') is None"
subprocess.run([sys.executable, "-c", child], check=True)

from typer.testing import CliRunner
from entailor.cli.app import app
from entailor.report import plots
from tests.forked import blank_figure

plots._svg = blank_figure
for line in sys.argv[1:]:
    result = CliRunner().invoke(app, shlex.split(line))
    found = line.startswith("validate") and " checks over " in result.output  # findings are an exit code as well
    assert result.exit_code == 0 or found, (line, result.output, result.exception)
assert {"peft", "transformers"} <= sys.modules.keys() and find_spec("kernels") is None
try:
    import kernels
except ImportError:
    sys.exit(0)
sys.exit("kernels could be imported")
"""
WITHOUT_ENTAILOR = """
import sys
sys.path.insert(0, {place!r})
import transformers.utils.import_utils as found
found.is_kernels_available.cache_clear()
sys.modules.pop("transformers.integrations.hub_kernels", None)
import transformers.integrations.hub_kernels
"""


@pytest.fixture
def planted(tmp_path) -> Path:
    """A package `kernels` of a version that transformers takes, which leaves a mark when it is used."""
    place = tmp_path / "site"
    (place / "kernels").mkdir(parents=True)
    (place / "kernels" / "__init__.py").write_text(PLANTED)
    (place / "kernels-0.18.2.dist-info").mkdir()
    (place / "kernels-0.18.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: kernels\nVersion: 0.18.2\n"
    )
    return place


def test_the_plant_is_taken_without_entailor(planted):
    """Else the test below would prove nothing."""
    found = forked("builtins", "exec", WITHOUT_ENTAILOR.format(place=str(planted)), {})
    assert found.code == 0, found.err
    assert (planted / "kernels" / "was-used").exists()


def test_no_command_uses_a_package_that_fetches_code(planted, tiny_model, tmp_path):
    """The door is shut before a library is imported, in child processes, and behind every command."""
    train, test = (write_csv(tmp_path / f"{name}.csv", make_examples(24, seed=name)) for name in (1, 2))
    model = f"--model {tiny_model('bert')}"
    data = f"--train {train} --test {test} {model}"
    settings = "methods.lora.num_train_epochs=1 methods.lora.r=2 data.validation_size=6 restarts=0"
    lines = {
        "compare": f"compare {data} --seeds 1 --out run methods=lora {settings} --quiet",
        "train": "train --help",  # it does what compare does
        "evaluate": f"evaluate --run run --test {test}",
        "predict": f"predict --run run --input {test} --output new.csv",
        "validate": f"validate {data}",
        "export": "export --help",  # it loads as predict does, and what it writes has the test below
        "serve": "serve --help",  # it loads as predict does
        "report": "report --run run",
        "verify": "verify --run run",
        "diff": "diff run run",
        "study": "study --help",  # it reads what diff reads, of three data sets
        "env": "env",
        "config-schema": "config-schema",
    }
    known = {one.name or one.callback.__name__ for one in cli.app.registered_commands}
    assert lines.keys() == known, "a new command belongs into this list"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(planted), str(Path(cli.__file__).parents[2]), str(ROOT)])
    environment.pop("USE_HUB_KERNELS", None)
    words = [*lines.values(), "models list", f"models pull {tiny_model('bert')}"]
    command = [sys.executable, "-c", EVERY_COMMAND, *words]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=planted.parent)
    assert found.returncode == 0, found.stdout + found.stderr
    assert not (planted / "kernels" / "was-used").exists()
    written = read_json(planted.parent / "run" / "environment.json")
    assert (written["hub_kernels"], written["versions"]["kernels"]) == (False, "0.18.2")


def test_an_export_shuts_the_door_before_it_imports_a_library(monkeypatch, tmp_path):
    monkeypatch.delenv("USE_HUB_KERNELS", raising=False)
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)  # the first library, which cannot be imported now
    with pytest.raises(ImportError, match="torch"):
        Runtime(tmp_path)
    assert (os.environ["USE_HUB_KERNELS"], sys.modules["kernels"]) == ("NO", None)


def test_a_package_that_was_there_before_is_noticed(monkeypatch, load_tiny):
    monkeypatch.setitem(sys.modules, "kernels", sys)
    with pytest.raises(ModelError, match=r"kernels.*Import entailor first"):
        check_no_hub_kernels()
    with pytest.raises(ModelError, match="Import entailor first"):
        load_tiny("bert")
