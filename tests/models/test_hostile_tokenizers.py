"""Tokenizer files of strangers: each one is read, or is one error that names the file, in bounded time and memory."""

import json
import shutil

import pytest
from tests.conftest import make_decoder_tokenizer, make_tokenizer
from tokenizers import Regex, models, pre_tokenizers
from transformers import AutoConfig

from entailor.config.parts import ModelSettings
from entailor.engine.speed import facts_of
from entailor.errors import ModelError
from entailor.models import tokenizer as tokenizer_module
from entailor.models.tokenizer import call_tokenizer, check_tokenizer, fit_tokenizer
from entailor.tasks import foreign


def grow(pattern, content, times=1):
    rule = {"type": "Replace", "pattern": pattern, "content": content}
    return {"type": "Sequence", "normalizers": [rule] * times}


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def deep(levels):
    return "[" * levels + "]" * levels


CHANGED = {
    "doubles": {"normalizer": grow({"String": "a"}, "aa", 40)},
    "doubles what is rare": {"normalizer": grow({"String": "\u0416"}, "\u0416\u0416", 40)},
    "doubles by a regular expression": {"normalizer": grow({"Regex": "."}, "bb", 12)},
    "writes much": {"normalizer": grow({"String": "a"}, "b" * 100_000)},
    "prepends": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "b" * 99_999}] * 9}},
    "drops everything": {"normalizer": grow({"Regex": "(?s)."}, "")},
    "one text for all": {"normalizer": grow({"Regex": "(?s)^.*$"}, "w1"), "pre_tokenizer": None},
    "a regular expression that cannot be read": {"pre_tokenizer": split("(")},
    "no model": {"model": None},
    "a model of no kind": {"model": {"type": "Nothing", "vocab": {}}},
    "an empty vocabulary": {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "x"}},
    "a vocabulary of negative ids": {"model": {"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}},
    "huge ids": {"model": {"type": "WordLevel", "vocab": {"a": 2**40}, "unk_token": "a"}},
    "merges without a vocabulary": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]}},
    "a normaliser of no kind": {"normalizer": {"type": "Nothing"}},
    "added tokens that are no tokens": {"added_tokens": [1, 2]},
    "a unigram without pieces": {"model": {"type": "Unigram", "vocab": [], "unk_id": 7}},
}
WRITTEN = {
    "empty": "",
    "not JSON": "{",
    "a list": "[]",
    "deep": deep(200_000),
    "deep in a key": '{"version": "1.0", "normalizer": ' + deep(100_000) + "}",
    "binary": "\x00\x01",
}
LEGIT = {
    "as it is": {},
    "NFKC": {"normalizer": {"type": "NFKC"}},
    "spaces": {"normalizer": grow({"String": " "}, "\u2581")},
    "holes": {"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 700, "[UNK]": 9}, "unk_token": "[UNK]"}},
    "truncation of its own": {
        "truncation": {"max_length": 1, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    },
    "colliding special tokens": {
        "added_tokens": [
            {"id": at, "content": "w1", "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for at in (0, 1)
        ]
    },
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(foreign, "SECONDS", 2.0)


def save(folder, changes, kind="bert"):
    make_tokenizer(kind).save_pretrained(folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("name", CHANGED)
def test_a_hostile_tokenizer_is_one_error_that_names_the_file(name, tmp_path):
    save(tmp_path, CHANGED[name])
    with pytest.raises(ModelError, match=r"tokenizer\.json: .*Get the model again") as caught:
        check_tokenizer(tmp_path)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_that_is_no_tokenizer_is_one_error(name, tmp_path):
    (tmp_path / "tokenizer.json").write_text(WRITTEN[name])
    with pytest.raises(ModelError, match=r"tokenizer\.json: .*Get the model again"):
        check_tokenizer(tmp_path)


@pytest.mark.parametrize("name", LEGIT)
def test_an_odd_tokenizer_is_taken(name, tmp_path):
    save(tmp_path, LEGIT[name])
    check_tokenizer(tmp_path)


def test_the_tokenizer_of_a_decoder_is_taken(tmp_path):
    make_decoder_tokenizer("gpt2").save_pretrained(tmp_path)
    check_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_file_beyond_the_limit_or_no_file_is_one_error(name, tmp_path):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ModelError, match=f"{name}: 1,099,511,627,776 bytes, at most"):
        check_tokenizer(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(ModelError, match=f"{name}: not a file"):
        check_tokenizer(tmp_path)


def test_a_panic_on_a_text_is_one_error():
    panic = type("PanicException", (BaseException,), {})

    def fails(error):
        def tokenizer(texts, pairs):
            raise error

        return tokenizer

    with pytest.raises(ModelError, match=r"fails on a text: called `unwrap\(\)`"):
        call_tokenizer(fails(panic("called `unwrap()`\nmore")), ["a"])
    for other in (KeyboardInterrupt, TypeError):
        with pytest.raises(other):
            call_tokenizer(fails(other()), ["a"])


def test_a_regular_expression_without_an_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(tokenizer_module, "PATIENCE", 0.05)
    monkeypatch.setattr(tokenizer_module, "SLOWEST", float("inf"))
    slow = make_tokenizer("bert")
    slow.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(x+x+)+y"), "isolated")
    assert call_tokenizer(slow, ["w1 w2"])["input_ids"]
    with pytest.raises(ModelError, match=r"tokenizer\.json fails on a text: it takes longer than 0 seconds"):
        call_tokenizer(slow, [("x" * 20 + " ") * 100])


def test_the_estimate_reads_no_tokenizer_that_was_not_tried(tiny_model, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_model("bert"), tmp_path / "model")
    save(folder, CHANGED["doubles"])
    monkeypatch.setattr("entailor.engine.precision.known_speeds", lambda hidden, inner: (1.0, 1.0))
    monkeypatch.setattr("entailor.models.memory_plan.forward_gflops", lambda bits: 1.0)
    placed = {"parts": [{"place": "cpu", "name": "layers", "parameters": 1}], "load_bytes": 1}
    with pytest.raises(ModelError, match="the tokenizer cannot be used"):
        facts_of(str(folder), ModelSettings(), placed, ["a"], None, half=False)
    facts = facts_of(str(tiny_model("bert")), ModelSettings(), placed, ["w1 w2 \ud800"], None, half=False)
    assert facts.tokens == 5


@pytest.mark.parametrize("longest", [{"a": 1}, "long", [7], True])
def test_a_longest_length_that_is_no_number_is_one_error(longest):
    tokenizer = make_tokenizer("bert")
    tokenizer.model_max_length = longest
    with pytest.raises(ModelError, match=r"m: tokenizer_config\.json: model_max_length: a number was expected, found"):
        fit_tokenizer("m", tokenizer, None, is_decoder=False)


def test_a_tokenizer_that_fails_on_the_first_text_is_one_error(tiny_model):
    """As files do that do not hold together: here the token for unknown words is not in the vocabulary."""
    tokenizer = make_tokenizer("bert")
    tokenizer.backend_tokenizer.model = models.WordPiece({"w1": 0}, unk_token="[UNK]")
    with pytest.raises(ModelError, match=r"tokenizer\.json fails on a text: WordPiece error: Missing \[UNK\] token"):
        fit_tokenizer("m", tokenizer, AutoConfig.from_pretrained(tiny_model("bert")), is_decoder=False)
