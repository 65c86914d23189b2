"""Tiny models made on the spot, and data small enough to train on in a second."""

from __future__ import annotations

import csv
import gc
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from safetensors.numpy import save_file
from tests.forked import blank_figure

from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings, ModelSettings
from entailor.data.example import Example, Split, content_id
from entailor.models.load import Backbone, Objective, load_backbone
from entailor.models.precision import PrecisionChoice
from entailor.models.resolve.source import resolve_model
from entailor.runs.files import write_checked_json
from entailor.runs.integrity import checksums
from entailor.runs.trial_folder import RECORD_FILE
from entailor.study.compare import Comparison, compare
from entailor.tasks import Task

ENCODERS = ("bert", "roberta", "distilbert", "electra", "deberta-v2", "mpnet", "modernbert")
DECODERS = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gpt2", "phi")
NLI_LABELS = ("entailment", "neutral", "contradiction")
WORDS = [f"w{index}" for index in range(60)] + ["yes", "no", "maybe", "some", "cat", "dog", "red", "[", "]", "<", ">"]
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_SPECIALS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
# the same examples every time, no stopwatch on a busy machine, no folder left behind
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

FP32 = PrecisionChoice("fp32", "tests compute in fp32")

BackboneLoader = Callable[..., Backbone]


def pytest_collection_finish() -> None:
    """Leave what libraries and tests brought along out of later collections of garbage: there is one a trial."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models of 16 units gain nothing from a second thread and lose much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _no_wait_for_the_disk() -> Iterator[None]:
    """What a file's content survives is a loss of power, which no test causes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_drawing() -> Iterator[None]:
    """Leave the lines out of the figures of reports: they take longer than a tiny comparison."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("entailor.report.plots._svg", blank_figure)
        yield


@pytest.fixture(scope="session", autouse=True)
def _few_timings() -> Iterator[None]:
    """Time three single examples at the end of each trial, not forty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("entailor.study.finished.LATENCY_EXAMPLES", 3)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Nobody asks the Hub whether it is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("entailor.models.resolve.hub.hub_is_silent", lambda: False)
        patch.setattr("entailor.data.tables.hub_is_silent", lambda: False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep hashes of tiny models out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENTAILOR_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make_tokenizer(kind: str) -> Any:
    """A word-level tokenizer with the special tokens and the template of an architecture."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ROBERTA_SPECIALS if kind in ("roberta", "mpnet") else BERT_SPECIALS
    pad, unk, first, last, mask = specials
    # roberta's padding index is 1 and its positions start behind it
    vocabulary = [first, pad, last, unk, mask] if kind in ("roberta", "mpnet") else list(specials)
    ids = {word: index for index, word in enumerate([*vocabulary, *WORDS])}
    backend = Tokenizer(models.WordLevel(ids, unk_token=unk))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    middle = f"{last} {last}" if kind in ("roberta", "mpnet") else last
    second = "$B:0 " + last + ":0" if kind in ("roberta", "mpnet", "modernbert") else "$B:1 " + last + ":1"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {middle} {second}",
        special_tokens=[(first, ids[first]), (last, ids[last])],
    )
    typed = kind in ("bert", "electra", "deberta-v2")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        unk_token=unk,
        cls_token=first,
        sep_token=last,
        mask_token=mask,
        model_max_length=64,
        model_input_names=["input_ids", *(["token_type_ids"] if typed else []), "attention_mask"],
    )


def make_decoder_tokenizer(kind: str) -> Any:
    """A byte-level tokenizer of whole words: some put a token in front, one ends with its pad, one has no pad."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors
    from tokenizers import decoders as decoding
    from transformers import PreTrainedTokenizerFast

    begin, end = ("<|begin|>", "<|end|>")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: index for index, token in enumerate([begin, end, *letters])}
    merges: list[tuple[str, str]] = []
    for word in [*(f"Ġ{word}" for word in (*WORDS, *PROMPT_WORDS)), *PROMPT_WORDS]:
        pieces = list(word)
        while len(pieces) > 1:  # from the left, so that words share their beginnings
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
                ids.setdefault("".join(pair), len(ids))
            pieces = ["".join(pair), *pieces[2:]]
    backend = Tokenizer(models.BPE(vocab=ids, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[ ]?\w+|\s|[^\w\s]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoding.ByteLevel()
    backend.add_special_tokens([AddedToken(begin, special=True), AddedToken(end, special=True)])
    if kind in ("llama", "mistral", "gemma"):
        backend.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, ids[begin])]
        )
    pad = {} if kind in ("gpt2", "mistral") else {"pad_token": end}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=begin, eos_token=end, model_max_length=320, **pad
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


PROMPT_WORDS = ("Question", "Answer", "True", "False", "Neither", "or", "Label", "text", "First", "Second", "labels")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message.role }}: {{ message.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def make_decoder_config(kind: str, tokenizer: Any) -> Any:
    """A configuration of two layers of 16 units; keys and values are shared by two heads where the kind can do that."""
    from transformers import AutoConfig

    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "max_position_embeddings": 320}
    sizes |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    if kind == "gpt2":
        return AutoConfig.for_model(kind, **sizes, n_embd=16, n_layer=2, n_head=2, n_positions=320)
    sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if kind != "phi":
        sizes |= {"num_key_value_heads": 1, "head_dim": 8}
    if kind == "gemma":
        sizes |= {"tie_word_embeddings": True}
    return AutoConfig.for_model(kind, **sizes)


def make_config(kind: str, vocab_size: int, pad_id: int) -> Any:
    """A configuration of two layers of 16 units."""
    from transformers import AutoConfig

    sizes: dict[str, Any] = {"vocab_size": vocab_size, "pad_token_id": pad_id, "max_position_embeddings": 80}
    if kind == "distilbert":
        sizes |= {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    else:
        sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    if kind == "electra":
        sizes["embedding_size"] = 8
    if kind == "deberta-v2":
        # as deberta-v3: one projection for states and relative positions, no absolute positions, no token types
        sizes |= {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "share_att_key": True}
        sizes |= {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "position_biased_input": False}
        sizes |= {"type_vocab_size": 0}
    if kind == "modernbert":
        sizes |= {"global_attn_every_n_layers": 2, "local_attention": 16, "cls_token_id": 2, "sep_token_id": 3}
        sizes |= {"bos_token_id": 2, "eos_token_id": 3}
    return AutoConfig.for_model(kind, **sizes)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny random encoder or decoder of an architecture, made once a session."""
    made: dict[str, Path] = {}

    def make(kind: str = "bert") -> Path:
        if kind not in made:
            made[kind] = make_tiny(kind, tmp_path_factory.mktemp(f"tiny-{kind}"))
        return made[kind]

    return make


def make_tiny(kind: str, folder: Path) -> Path:
    """Write a tiny random encoder or decoder of an architecture, and return its folder."""
    from transformers import AutoModel, AutoModelForCausalLM

    is_decoder = kind in DECODERS
    tokenizer = make_decoder_tokenizer(kind) if is_decoder else make_tokenizer(kind)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if is_decoder:
            model = AutoModelForCausalLM.from_config(make_decoder_config(kind, tokenizer))
        else:
            model = AutoModel.from_config(make_config(kind, len(tokenizer), tokenizer.pad_token_id))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_table(folder: Path) -> str:
    """Write a table of token vectors, and return its folder as text."""
    tokenizer = make_tokenizer("bert")
    folder.mkdir(exist_ok=True)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    vectors = np.random.default_rng(1).normal(size=(len(tokenizer), 6)).astype(np.float32)
    save_file({"embeddings": vectors}, folder / "model.safetensors")
    return str(folder)


def make_examples(
    count: int, *, seed: int = 0, pair: bool = True, labels: tuple[str, ...] = NLI_LABELS
) -> list[Example]:
    """Pairs whose label is a word of the second text: learnable in a few steps by anything that reads it."""
    rng = random.Random(seed)
    cues = {label: f"w{index}" for index, label in enumerate(labels)}
    rows = []
    for index in range(count):
        label = labels[index % len(labels)]
        words = [rng.choice(WORDS[10:60]) for _ in range(rng.randint(2, 12))]
        second = [cues[label], *(rng.choice(WORDS[10:60]) for _ in range(rng.randint(1, 5)))]
        rng.shuffle(second)
        first_text, second_text = " ".join(words), " ".join(second)
        text, text_pair = (first_text, second_text) if pair else (f"{first_text} {second_text}", None)
        rows.append(Example(f"{content_id(text, text_pair)}-{index}", text, text_pair, label, group=f"g{index % 2}"))
    return rows


@pytest.fixture(scope="session")
def nli_task() -> Task:
    return Task(NLI_LABELS, is_pair=True)


@pytest.fixture(scope="session")
def nli_split() -> Split:
    """Forty-eight training pairs, 18 to tune on, 18 to test on."""
    return Split(tuple(make_examples(48, seed=1)), tuple(make_examples(18, seed=2)), tuple(make_examples(18, seed=3)))


@pytest.fixture(scope="session")
def load_tiny(tiny_model: Callable[[str], Path], nli_task: Task) -> BackboneLoader:
    """Return a loader of tiny backbones: architecture or folder, task, seed, and model settings by name."""

    def load(
        kind: str | Path = "bert",
        task: Task = nli_task,
        seed: int = 0,
        objective: Objective = "classify",
        **settings: Any,
    ) -> Backbone:
        folder = kind if isinstance(kind, Path) else tiny_model(kind)
        return load_backbone(resolve_model(str(folder)), task, ModelSettings(**settings), FP32, seed, objective)

    return load


def write_csv(path: Path, rows: Sequence[Example]) -> str:
    """Write examples as `id,premise,hypothesis,label,genre` (or `id,text,label,genre`), and return the path as text."""
    texts = ("text",) if rows[0].text_pair is None else ("premise", "hypothesis")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *texts, "label", "genre"])
        for row in rows:
            writer.writerow([row.id, row.text, *([row.text_pair] if len(texts) == 2 else []), row.label, row.group])
    return str(path)


def reseal(trial: Path, **changes: Any) -> None:
    """Make a trial whose files or record a test has changed look as if it had been written so."""
    head = {**json.loads((trial / RECORD_FILE).read_text(encoding="utf-8")), **changes}
    head["files"] = checksums(trial, leave_out=(RECORD_FILE,))
    del head["checksum"]
    write_checked_json(trial / RECORD_FILE, head)


@pytest.fixture(scope="session")
def csv_of() -> Callable[[Path, Sequence[Example]], str]:
    """Return what writes examples to a CSV file."""
    return write_csv


@pytest.fixture(scope="session")
def nli_files(tmp_path_factory: pytest.TempPathFactory, nli_split: Split) -> DataSettings:
    """The pairs of `nli_split` as three CSV files."""
    folder = tmp_path_factory.mktemp("nli")
    return DataSettings(**{name: write_csv(folder / f"{name}.csv", rows) for name, rows in nli_split.parts()})


@pytest.fixture(scope="session")
def nli_experiment(tiny_model: Callable[[str], Path], nli_files: DataSettings) -> Experiment:
    """Six trials of about a second: four methods without randomness, and lora with two seeds."""
    return Experiment(
        data=nli_files,
        models=(str(tiny_model("bert")),),
        model=ModelSettings(precision="fp32"),
        methods={
            "majority": {},
            "bag_of_words": {},
            "hypothesis_only": {},
            "linear_probe": {"C": [0.1, 1.0]},
            "lora": {"r": 2, "num_train_epochs": 2, "learning_rate": 0.03},
        },
        seeds=2,
        restarts=0,
        estimate=False,
        out="not to be used",
    )


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, nli_experiment: Experiment) -> Comparison:
    """A finished run of `nli_experiment`; not to be changed by a test."""
    return compare(nli_experiment.model_copy(update={"out": str(tmp_path_factory.mktemp("runs") / "finished")}))
