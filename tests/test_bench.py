"""`entailor bench`: every method in both precisions, and a clear word where a method has no training loop."""

import json

import pytest

from entailor import bench as module
from entailor.bench import bench, bench_text
from entailor.errors import ConfigError


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(module, "GEMM_SHAPE", (8, 8, 8))
    monkeypatch.setattr(module, "COPY_BYTES", 4096)
    monkeypatch.setattr(module, "ROWS", 120)


def test_every_method_is_measured_in_both_precisions(tiny_model, nli_split, csv_of, tmp_path):
    said, path = [], csv_of(tmp_path / "train.csv", nli_split.train)
    result = bench(
        str(tiny_model("bert")), ("lora", "p_tuning"), train_file=path, seconds=0.05, on_progress=said.append
    )
    assert [(one.method, one.precision) for one in result.methods] == [
        (name, precision) for name in ("lora", "p_tuning") for precision in ("fp32", "bf16")
    ]
    for one in result.methods:
        assert one.train_examples_per_second > 0
        assert one.score_examples_per_second > 0
        assert one.peak_memory_bytes > 2**20
        best = max(other.train_examples_per_second for other in result.methods if other.method == one.method)
        assert (result.fastest_precision[one.method] == one.precision) == (one.train_examples_per_second == best)
    machine = result.machine
    assert min(machine.fp32_gflops, machine.bf16_gflops, machine.memory_gigabytes_per_second) > 0
    assert said == ["matrix products and memory", *(f"{one.method} in {one.precision}" for one in result.methods)]
    text = bench_text(result)
    assert text.count("*") == 3
    assert "lora" in text


def test_rows_of_the_user_are_used(tiny_model, nli_split, csv_of, tmp_path):
    path = csv_of(tmp_path / "rows.csv", nli_split.train)
    result = bench(str(tiny_model("distilbert")), ("lora",), train_file=path, seconds=0.01)
    assert 5 < result.tokens_per_example < 30


def test_a_method_without_a_training_loop_is_refused(tiny_model):
    with pytest.raises(ConfigError, match=r"bench: majority is not trained by gradients. Choose from: .*lora"):
        bench(str(tiny_model("bert")), ("majority",))


def test_the_verb_prints_json(tiny_model, capsys):
    from entailor.cli.app import app

    words = ["bench", "--model", str(tiny_model("bert")), "--methods", "lora", "--seconds", "0.01", "--json", "-q"]
    app(args=words, standalone_mode=False)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["methods"][0]["method"] == "lora"
    assert printed.err == ""
