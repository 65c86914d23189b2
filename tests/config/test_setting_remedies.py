"""Every remedy in a message about settings and command lines is followed: what it proposes is what is given next."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.config.building import experiment, refusal

from entailor.cli.arguments import label_settings, mapping, read_experiment, refuse_old_flags
from entailor.config.overrides import read_yaml
from entailor.errors import RENAMED, ConfigError
from entailor.methods.registry import build_method

FOUR_BIT, AUTO = "model.bnb_4bit_quant_type=fp4", "model.device_map=auto"


@pytest.mark.parametrize(
    ("wrong", "remedy", "told"),
    [
        (["methods=[lora, lora]"], "a name of its own and `method:`", ["methods=[lora, {wide: {method: lora}}]"]),
        (["methods={a b: {method: lora}}"], "use letters, digits, '.', '_' and '-'", ["methods={a-b: {method: lora}}"]),
        (["lora"], "expected key=value, e.g. learning_rate=1e-4", ["learning_rate=1e-4"]),
        (["methods=lora", "lora.lerning_rate=1e-4"], "Did you mean 'learning_rate'?", ["lora.learning_rate=1e-4"]),
        (["seed=3"], "Did you mean 'seeds'?", ["seeds=3"]),
        (["data.trian=a.csv"], "Did you mean 'train'?", ["data.train=a.csv"]),
        (["methods=loar"], "Did you mean 'lora'?", ["methods=lora"]),
        (
            ["model.load_in_4bit=true", "model.load_in_8bit=true"],
            "Set one of them to false",
            ["model.load_in_4bit=true", "model.load_in_8bit=false"],
        ),
        ([FOUR_BIT], "Set load_in_4bit=true or leave it out", [FOUR_BIT, "model.load_in_4bit=true"]),
        (["model.max_memory={0: 1GiB}"], "Set it", ["model.max_memory={0: 1GiB}", AUTO]),
        (["model.max_memory={0: big}", AUTO], "like 10GiB", ["model.max_memory={0: 10GiB}"]),
        (["model.max_memory={gpu: 1GiB}", AUTO], "the number of a GPU, cpu or disk", ["model.max_memory={cpu: 1GiB}"]),
        (
            ["model.device_map=gpu"],
            "null, auto, cpu, cuda, cuda:N, mps or xpu is expected",
            ["model.device_map=cuda:1"],
        ),
        (["budget.trials=2", "budget.minutes=3"], "is one of trials, minutes and examples", ["budget.minutes=3"]),
    ],
)
def test_settings(wrong, remedy, told):
    assert remedy in refusal(*wrong)
    for name, own in experiment(*told, *(word for word in wrong if word == AUTO)).methods.items():
        build_method(name, own)


@pytest.mark.parametrize(
    ("content", "remedy", "told"),
    [
        (b"out: caf\xe9\n", "Save the file as UTF-8", "out: caf\xe9\n"),
        (b"seeds: 1\nseeds: 2\n", "Keep one", "seeds: 2\n"),
        (b"out: !!binary eA==\n", "Write a plain value", "out: x\n"),
        (b"out: ''\n", "give a folder, e.g. runs/mine", "out: runs/mine\n"),
        (b"- seeds: 1\n", "a mapping of keys to values was expected", "seeds: 1\n"),
        (b"data: {label_names: {no: a}}\n", "put the label in quotes", "data: {label_names: {'no': a}}\n"),
    ],
)
def test_files(tmp_path: Path, content: bytes, remedy: str, told: str):
    file = tmp_path / "e.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=remedy):
        experiment(values=read_yaml(file))
    file.write_text(told, encoding="utf-8")
    assert experiment(values=read_yaml(file))


def test_a_folder_instead_of_a_file(tmp_path: Path):
    with pytest.raises(ConfigError, match="Give the path of a YAML file"):
        read_yaml(tmp_path)
    (tmp_path / "e.yaml").write_text("seeds: 2\n")
    assert read_yaml(tmp_path / "e.yaml") == {"seeds": 2}


@pytest.mark.parametrize("where", ["model", "methods"])
def test_code_of_a_checkpoint_that_a_file_asks_for(tmp_path: Path, where: str):
    file, word = tmp_path / "e.yaml", "model.trust_remote_code=true"
    asked = "model: {trust_remote_code: true}"
    file.write_text(asked if where == "model" else f"methods: {{lora: {{{asked}}}}}")
    with pytest.raises(ConfigError, match=f"say so on the command line as well: {word}"):
        read_experiment(file, {}, [])
    assert read_experiment(file, {}, [word]).model.trust_remote_code


@pytest.mark.parametrize("flag", RENAMED)
def test_flags_of_the_first_release(flag: str):
    with pytest.raises(ConfigError, match=f"Write --{RENAMED[flag].replace('_', '-')} instead"):
        refuse_old_flags(["compare", f"--{flag.replace('_', '-')}", "x"])
    refuse_old_flags(["compare", f"--{RENAMED[flag].replace('_', '-')}", "x"])


def test_pairs_of_a_flag():
    with pytest.raises(ConfigError, match="expected field=COLUMN,field=COLUMN"):
        mapping("text", "--columns")
    with pytest.raises(ConfigError, match=r"--columns: text stands twice\. Keep one"):
        mapping("text=a,text=b", "--columns")
    assert mapping("text=body,label=class", "--columns") == {"text": "body", "label": "class"}
    with pytest.raises(ConfigError, match="expected"):
        label_settings("0:a", None)
    assert label_settings("0=a,1=b", None)[0] == label_settings('{"0": a, "1": b}', None)[0] == {"0": "a", "1": "b"}
