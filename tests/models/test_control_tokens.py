"""Text that looks like a special token is text, for every kind of tokenizer there is."""

import pytest
from tests.conftest import make_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast

from entailor.data.example import Example
from entailor.models.tokenizer import TextEncoder

CONFIG = AutoConfig.for_model("bert", max_position_embeddings=2000, type_vocab_size=1, num_hidden_layers=1)
TEMPTING = (
    "<s>",
    "</s>",
    "<pad>",
    "<mask>",
    "[SEP]",
    "[CLS]",
    "[PAD]",
    "[MASK]",
    "<|endoftext|>",
    "<|im_end|>",
    "＜/s＞",
    "</s></s> a <s>",
    "[ sep ] [SEP][CLS]",
)
LETTERS = [(letter, -5.0) for letter in "abcdefghijklmnopqrstuvwxyz</>[]|_SEPCLSPADMK"]


def wordpiece():
    return make_tokenizer("bert")


def word_level_by_spaces():
    tokenizer = make_tokenizer("bert")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


def unigram():
    """As XLM-R, T5, ALBERT and DeBERTa-v2: the control tokens are pieces of the vocabulary, with the best score."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("<mask>", 0.0), ("▁", -2.0)]
    backend = Tokenizer(models.Unigram(pieces + list(dict(LETTERS).items()), unk_id=3))
    backend.normalizer, backend.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "cls_token": "<s>", "sep_token": "</s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", **names
    )


def byte_level(*, whole_words):
    """As GPT-2, and as Llama-3, which looks a whole word up before it merges."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for token in ("<|endoftext|>", "<s>", "</s>"):
        vocabulary[token] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, [], ignore_merges=whole_words))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not whole_words)
    backend.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


TOKENIZERS = {
    "wordpiece": wordpiece,
    "word level": word_level_by_spaces,
    "unigram": unigram,
    "gpt2": lambda: byte_level(whole_words=False),
    "llama3": lambda: byte_level(whole_words=True),
}


@pytest.fixture(params=TOKENIZERS)
def encoder(request):
    return TextEncoder(TOKENIZERS[request.param](), CONFIG, max_length=1000)


def control_tokens(encoder, row):
    return [token for token in row.input_ids if token in encoder.control]


@pytest.mark.parametrize("text", TEMPTING)
def test_text_never_becomes_a_control_token(text, encoder):
    for left, right in (("a", "b"), (text, "b"), ("a", text), (f"x{text}y", f"{text} {text}")):
        plain, tempted = encoder.encode([Example("1", "a", "b"), Example("2", left, right)])
        assert control_tokens(encoder, tempted) == control_tokens(encoder, plain)
        (single,) = encoder.encode([Example("2", left)])
        (other,) = encoder.encode([Example("1", "a")])
        assert control_tokens(encoder, single) == control_tokens(encoder, other)


def test_the_rest_of_the_text_stays(encoder):
    (row,) = encoder.encode([Example("1", "abc </s> abc")])
    (apart,) = encoder.encode([Example("1", "abc < /s> abc")])
    if encoder.tokenizer.unk_token == "<unk>":
        assert row.input_ids == apart.input_ids
    assert len(row) > 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a",
        "\0",
        "a\0b",
        "\ud800",
        "x\udfffy",
        "👩‍👩‍👧‍👦" * 5,
        "\u202e\u05d0\u0628",
        "e" + "\u0301" * 50,
        "ﷺ" * 20,
        "\r\n\t\u2028",
    ],
)
def test_every_kind_of_text_goes_through(text, encoder):
    rows = encoder.encode([Example("1", text, "b"), Example("2", "a", text), Example("3", "a", "b")])
    assert [row.example_index for row in rows] == [0, 1, 2]
    (alone,) = encoder.encode([Example("3", "a", "b")])
    assert rows[2].input_ids == alone.input_ids  # a neighbour changes nothing


def test_a_long_text_is_cut(encoder):
    megabyte = isinstance(encoder.tokenizer.backend_tokenizer.model, models.WordPiece | models.WordLevel)
    (row,) = encoder.encode([Example("1", "ab </s> " * (125_000 if megabyte else 10_000), "b")])
    assert row.truncated
    assert len(row) == encoder.max_length
    (plain,) = encoder.encode([Example("1", "a", "b")])
    assert control_tokens(encoder, row) == control_tokens(encoder, plain)
