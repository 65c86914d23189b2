"""Pitfall 11: `truncation="only_first"` fails or the label slot is cut (transformers#5472, lm-evaluation-harness#3421).

The label slot of a prompt is for decoders; here are classifiers of texts and pairs.
"""

import pytest
from tests.conftest import make_tokenizer

from entailor import DataSettings, ModelSettings, validate
from entailor.data.example import Example

SHORT, LONG = "w1 w2", " ".join(f"w{number}" for number in range(40))


def test_usual_only_first_fails_on_a_long_second_text():
    with pytest.raises(Exception, match="too short to respect the provided max_length"):
        make_tokenizer("bert")(SHORT, LONG, truncation="only_first", max_length=20)


def test_usual_cutting_at_the_end_loses_the_hypothesis():
    """Joined first and cut afterwards, as scripts do: the second text, which decides, is gone."""
    tokenizer = make_tokenizer("bert")
    ids = tokenizer(f"{LONG} [SEP] yes no", truncation=True, max_length=20)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("yes") not in ids


def test_ours_cuts_the_longer_text_and_keeps_the_other_whole(load_tiny):
    encoder = load_tiny("bert", max_length=20).text_encoder
    for pair in ((SHORT, LONG), (LONG, SHORT)):
        (item,) = encoder.encode([Example("x", *pair)])
        assert item.truncated
        assert len(item) == 20
        words = encoder.tokenizer.convert_ids_to_tokens(item.input_ids)
        assert {"w1", "w2"} <= set(words)
        assert words.count("[SEP]") == 2


def test_ours_tells_the_share(tiny_model, tmp_path):
    path = tmp_path / "train.csv"
    path.write_text(
        "\n".join(["premise,hypothesis,label", f"{LONG},{SHORT},yes", *[f"{SHORT},w{n},no" for n in range(3)]])
    )
    found = validate(
        DataSettings(train=str(path)), model=str(tiny_model("bert")), model_settings=ModelSettings(max_length=20)
    )
    (cut,) = (one for one in found.findings if one.kind == "truncated")
    assert cut.message.startswith("1 of 4 examples (25 %) of train are longer than 20 tokens")
