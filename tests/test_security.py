"""What comes from strangers stays data: no pickle, no code that was not asked for, no secret in a run folder."""

import base64
import hashlib
import re
import shutil
from pathlib import Path

import pytest
import torch
from tests.conftest import FP32, make_examples, reseal

from entailor.cli import app as cli
from entailor.cli.arguments import read_experiment
from entailor.config.parts import ModelSettings
from entailor.data.example import Split
from entailor.errors import ConfigError, EntailorError, MethodError, ModelError, RunError
from entailor.methods import build_method
from entailor.methods.lora import Lora
from entailor.models.resolve import cache
from entailor.models.resolve.source import resolve_model
from entailor.report.html import render
from entailor.runs.files import read_json, write_json
from entailor.runs.redaction import HIDDEN, without_secrets
from entailor.shipping.inference import harmless
from entailor.shipping.restoring import load_classifier
from entailor.study.trial import run_trial
from entailor.study.trial_plan import TrialPlan

SPLIT = Split(*(tuple(make_examples(count, seed=count)) for count in (12, 6, 6)))


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture(scope="module")
def trained(tiny_model, nli_task, tmp_path_factory):
    """A folder with a base model and a trial that was trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    base = shutil.copytree(tiny_model("bert"), folder / "base")
    plan = TrialPlan("row", build_method("lora", {"r": 2, "num_train_epochs": 1}), str(base), 0, ModelSettings(), FP32)
    assert run_trial(plan, nli_task, SPLIT, folder / "trial").status == "complete"
    return folder


@pytest.fixture
def base(trained, tiny_model):
    """The base model, as it was, which a test may change."""
    shutil.rmtree(trained / "base")
    return shutil.copytree(tiny_model("bert"), trained / "base")


@pytest.fixture
def trial(trained, base, tmp_path):
    """A copy of the trial, which a test may change."""
    return shutil.copytree(trained / "trial", tmp_path / "trial")


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_an_adapter_stored_by_pickle_is_never_opened(name, trial, tmp_path):
    (trial / "adapter" / "adapter_model.safetensors").unlink()
    torch.save(Bomb(tmp_path / "bang"), trial / "adapter" / name)
    with pytest.raises(RunError, match="missing"):
        load_classifier(trial)
    reseal(trial)  # a stranger can write checksums as well
    with pytest.raises((MethodError, RunError), match=r"adapter_model\.safetensors: missing"):
        load_classifier(trial)
    assert not (tmp_path / "bang").exists()


def test_a_model_stored_by_pickle_is_never_opened(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model("bert"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(tmp_path / "bang"), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin, no safetensors weights.*save_pretrained"):
        resolve_model(str(folder))
    assert not (tmp_path / "bang").exists()


def test_changed_weights_are_noticed_whatever_was_remembered(trial, base, monkeypatch):
    monkeypatch.setattr(cache, "REMEMBERED_FROM_BYTES", 1)
    monkeypatch.setattr(cache, "SETTLED_AFTER_NS", -(10**12))
    monkeypatch.setattr(cache, "_state", lambda stat: {"size": stat.st_size})  # a file system that tells no change
    resolve_model(str(base))
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    assert load_hash(base) != resolve_model(str(base), hash_again=True).weights_sha256
    with pytest.raises(RunError, match=r"with weights [0-9a-f]{12}\.\.\., but .* now holds"):
        load_classifier(trial)


def load_hash(folder):
    return resolve_model(str(folder)).weights_sha256


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.json", '"gelu"', '"relu"'),
        ("tokenizer.json", '"Lowercase"', '"Lowercase" '),
        ("tokenizer_config.json", "{", "{ "),
        ("added_tokens.json", None, "{}"),
        ("chat_template.jinja", None, "x"),
    ],
)
def test_a_base_model_with_another_configuration_or_tokenizer_is_another_model(trial, base, name, old, new):
    text = (base / name).read_text() if old else ""
    (base / name).write_text(text.replace(old, new) if old else new)
    (base / "README.md").write_text("not read")
    if text != (base / name).read_text():
        with pytest.raises(RunError, match=rf"trained on .* with another {name} than .* holds now"):
            load_classifier(trial)
    (base / name).write_text(text) if old else (base / name).unlink()
    assert load_classifier(trial)


def test_a_file_does_not_decide_that_code_is_run(trial, tmp_path):
    described = read_json(trial / "classifier.json")
    described["model_settings"]["trust_remote_code"] = True
    write_json(trial / "classifier.json", described)
    reseal(trial)
    with pytest.raises(RunError, match=r"run only when asked for by name.*--trust-remote-code"):
        load_classifier(trial)
    assert load_classifier(trial, trust_remote_code=True)


@pytest.mark.parametrize(
    "text",
    [
        "model: {trust_remote_code: true}",
        "methods:\n  lora: {model: {trust_remote_code: true}}",
        "methods:\n  - lora: {model: {trust_remote_code: true}}",
    ],
)
def test_an_experiment_file_does_not_either(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(
        ConfigError, match=r"would run code that comes with the checkpoint.*model\.trust_remote_code=true"
    ):
        read_experiment(tmp_path / "a.yaml", {}, [])
    with pytest.raises(ConfigError, match="would run code"):
        read_experiment(tmp_path / "a.yaml", {}, ["model.trust_remote_code=false"])
    assert read_experiment(tmp_path / "a.yaml", {}, ["model.trust_remote_code=true"])


def test_a_list_of_methods_may_hold_settings(tmp_path):
    (tmp_path / "a.yaml").write_text("methods: [majority, {lora: {r: 3}}]")
    assert read_experiment(tmp_path / "a.yaml", {}, []).methods["lora"]["r"] == 3


SECRETS = ("hf_abcdefghijklmnopqrstuvwxyz", "a-password-of-the-index", "value-of-a-token-variable")


def test_no_file_of_a_run_holds_a_secret(tiny_model, nli_task, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRETS[0])
    monkeypatch.setenv("MY_API_KEY", SECRETS[2])

    def leak(*_, **__):
        raise ValueError(f"401 for https://me:{SECRETS[1]}@index/simple with Bearer {SECRETS[0]}, key {SECRETS[2]}")

    monkeypatch.setattr(Lora, "adapt", leak)
    plan = TrialPlan("row", build_method("lora", {}), str(tiny_model("bert")), 0, ModelSettings(), FP32)
    record = run_trial(plan, nli_task, SPLIT, tmp_path / "trial")
    assert HIDDEN in record.error
    files = [path for path in (tmp_path / "trial").rglob("*") if path.is_file()]
    assert "traceback.txt" in {path.name for path in files}
    for path in files:
        for secret in SECRETS:
            assert secret.encode() not in path.read_bytes(), path.name


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "aB3" * 11,
        "ghp_" + "aB3" * 12,
        "github_pat_11" + "aB3_" * 10,
        "glpat-" + "aB3-" * 5,
        "pypi-AgEIcHlwaS5vcmcC" + "aB3-_" * 20,
        "sk-proj-" + "aB3_" * 10,
        "sk-" + "aB3" * 16,
    ],
)
def test_a_token_is_hidden_wherever_it_stands(secret):
    for text in (secret, f"key={secret}.", f"https://host/{secret}/x", f"'{secret}'"):
        assert secret[:14] not in without_secrets(text)


@pytest.mark.parametrize(
    "name",
    [
        "/cache/pypi-sentence-transformers-minilm==0.1.0/config.json",
        "pypi-agent-framework-for-everybody==1.0",
        "hf-internal-testing/tiny-random-BertModel",
        "sk-learn-text-classification-model",
        "glpat/gho-st-in-the-shell-classification",
    ],
)
def test_a_name_that_begins_like_a_token_stays(name):
    assert without_secrets(name) == name


def test_ordinary_words_are_not_hidden(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "true")
    text = "true: the disk at /tmp is full; https://example.org/a?b=c is not there; sk-learn"
    assert without_secrets(text) == text


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_a_cell_that_is_a_formula_is_made_harmless(cell):
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-1", "+2.5", "-1e-3", "a=1", "", "1-2", ".5", "-.5"])
def test_other_cells_stay_as_they_are(cell):
    assert harmless(cell) == cell


def test_a_page_forbids_everything_it_does_not_need(finished_run):
    page = render(name="<script>alert(1)</script>", comparison=finished_run.summary, records=finished_run.records)
    scripts = re.findall(r"<script(?: [^>]*)?>(.*?)</script>", page, flags=re.DOTALL)
    own = base64.b64encode(hashlib.sha256(scripts[-1].encode()).digest()).decode()
    assert page.count("<script") == len(re.findall(r"<script(?: type=\"application/json\" id=\"errors-data\")?>", page))
    assert f"script-src 'sha256-{own}';" in page  # the one that runs; any other is data, or refused
    assert "default-src 'none'" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ premise.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ 'a' * 10000000000 }}",
        "{{ premise | center(10000000000) }}",
        "{{ '{:>10000000000}'.format(1) }}",
    ],
)
def test_a_prompt_reaches_neither_python_nor_all_memory(template):
    from entailor.config.parts import PromptSettings
    from entailor.tasks.templates import build_template

    whole = f"{template} {{{{ premise }}}} {{{{ hypothesis }}}} {{{{ label }}}}"
    with pytest.raises(EntailorError, match=r"prompt\.template"):
        build_template(PromptSettings(template=whole), ("yes", "no"), is_pair=True)


def test_nobody_loads_a_pickle():
    source = Path(cli.__file__).parent
    texts = {path: path.read_text(encoding="utf-8") for path in source.rglob("*.py")}
    for path, text in texts.items():
        for word in (
            "import pickle",
            "torch.load(",
            "joblib",
            "allow_pickle=True",
            "weights_only=False",
            "yaml.load(text)",
        ):
            assert word not in text, f"{path}: {word}"
