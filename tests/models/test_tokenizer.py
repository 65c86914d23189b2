import json
import shutil
from array import array
from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from tests.conftest import ENCODERS, ROBERTA_SPECIALS, make_config, make_tokenizer
from transformers import AutoConfig

from entailor.data.example import Example
from entailor.errors import ModelError
from entailor.models import tokenizer as tokenizer_module
from entailor.models.tokenizer import KEPT, KEPT_FROM, TextEncoder, position_limit

TYPED = ("bert", "electra")  # deberta-v3 has token types in its tokenizer but none in its model


def encoder(kind="bert", max_length=64, **settings):
    tokenizer = make_tokenizer(kind)
    return TextEncoder(tokenizer, make_config(kind, len(tokenizer), tokenizer.pad_token_id), max_length, **settings)


def ids(text_encoder, text, pair=None):
    (item,) = text_encoder.encode([Example("x", text, pair)])
    return item


def words(text_encoder, token_ids):
    return text_encoder.tokenizer.convert_ids_to_tokens(token_ids)


@pytest.mark.parametrize("kind", ENCODERS)
def test_special_tokens_are_added_once(kind):
    text_encoder = encoder(kind)
    first, last = ("<s>", "</s>") if kind in ("roberta", "mpnet") else ("[CLS]", "[SEP]")
    middle = [last, last] if kind in ("roberta", "mpnet") else [last]
    single = ids(text_encoder, "w1 w2")
    assert words(text_encoder, single.input_ids) == [first, "w1", "w2", last]
    pair = ids(text_encoder, "w1 w2", "w3")
    assert words(text_encoder, pair.input_ids) == [first, "w1", "w2", *middle, "w3", last]
    assert (pair.example_index, pair.truncated, len(pair)) == (0, False, len(pair.input_ids))


@pytest.mark.parametrize("kind", ENCODERS)
def test_token_types_tell_the_texts_apart_where_the_model_has_them(kind):
    pair = ids(encoder(kind), "w1 w2", "w3")
    assert pair.token_type_ids == (array("b", [0, 0, 0, 0, 1, 1]) if kind in TYPED else None)


def many(count):
    return [Example(str(row), f"w{row % 7} w{row % 5}" + " w9" * (row % 90), f"w{row % 3}") for row in range(count)]


def test_a_data_set_is_tokenised_once_for_all_trials(monkeypatch):
    rows = many(KEPT_FROM)
    first = encoder().encode(rows)
    monkeypatch.setattr(TextEncoder, "_call", lambda *given, **settings: pytest.fail("tokenised again"))
    another = encoder()
    assert another.encode([replace(row, id=f"other {row.id}", label="x") for row in rows]) == first


@pytest.mark.parametrize("change", ["text", "room", "pair", "tokenizer", "windows"])
def test_whatever_decides_the_ids_is_looked_at(change):
    rows = many(KEPT_FROM)
    first = encoder(max_length=40).encode(rows)
    other = encoder("roberta" if change == "tokenizer" else "bert", 40, windows=change == "windows", stride=8)
    if change in ("text", "pair"):
        rows[-1] = replace(rows[-1], **{"text": {"text": "w8"}, "pair": {"text_pair": "w8"}}[change])
    assert other.encode(rows, reserve=int(change == "room")) != first


def test_a_boundary_between_two_texts_is_part_of_them():
    assert ids(encoder(), "w1 w2", "w3") != ids(encoder(), "w1", "w2 w3")
    assert ids(encoder(), "w1", "") != ids(encoder(), "w1", None)


@pytest.mark.parametrize("windows", [False, True])
def test_pieces_of_a_large_data_set_are_put_together_in_order(windows, monkeypatch):
    rows = many(KEPT_FROM)
    whole = encoder(max_length=40, windows=windows, stride=8).encode(rows)
    monkeypatch.setattr(tokenizer_module, "CHUNK", 7)
    monkeypatch.setattr(tokenizer_module, "_kept", OrderedDict())
    assert encoder(max_length=40, windows=windows, stride=8).encode(rows) == whole
    assert sorted({item.example_index for item in whole}) == list(range(KEPT_FROM))


def test_only_the_data_sets_seen_last_are_kept(monkeypatch):
    kept = OrderedDict()
    monkeypatch.setattr(tokenizer_module, "_kept", kept)
    for more in range(2 * KEPT):
        encoder().encode(many(KEPT_FROM + more))
        encoder().encode(many(1 + more))  # answers to a few examples push nothing out
    assert [len(items) - KEPT_FROM for items in kept.values()] == list(range(KEPT, 2 * KEPT))


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("mark", ["[SEP]", "[CLS]", "[PAD]", "[MASK]", "</s>", "<s>", "<pad>", "<mask>"])
def test_text_that_looks_like_a_special_token_is_text(kind, mark):
    text_encoder = encoder(kind)
    plain = ids(text_encoder, "w1 w2", "w3").input_ids
    marked = ids(text_encoder, f"w1 {mark} w2", f"{mark} w3").input_ids
    special = set(text_encoder.tokenizer.all_special_ids) - {text_encoder.tokenizer.unk_token_id}
    assert [i for i in marked if i in special] == [i for i in plain if i in special]
    again = ids(text_encoder, f"w1 {mark} w2", f"{mark} w3").input_ids  # no call may set it back
    assert again == marked


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_pad_token_written_in_the_text_hides_nothing(kind, load_tiny, nli_task):
    # positions come from lengths: what stands behind it is read (huggingface/transformers#34055)
    from entailor.classifiers.transformer import TransformerClassifier

    classifier = TransformerClassifier(load_tiny(kind), nli_task)
    pad = classifier.text_encoder.tokenizer.pad_token
    items = classifier.encode([Example("x", f"w1 {pad} w2", f"w3 {pad} w4"), Example("y", "w1", "w2")])
    batch = classifier.collate(items)
    assert batch.mask_BT.sum(1).tolist() == [len(item) for item in items]
    # an id equal to the pad id is attended as well: lengths decide, and no comparison
    ids_T = items[0].input_ids
    odd = replace(items[0], input_ids=[*ids_T[:2], classifier.pad_id, *ids_T[3:]])
    batch = classifier.collate([odd, items[1]])
    assert batch.mask_BT.sum(1).tolist() == [len(item) for item in items]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padding_side_of_a_tokenizer_changes_nothing(side, tiny_model, load_tiny, nli_task, tmp_path):
    from entailor.classifiers.transformer import TransformerClassifier

    folder = shutil.copytree(tiny_model("bert"), tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": side}))
    classifier = TransformerClassifier(load_tiny(folder), nli_task)
    assert classifier.text_encoder.tokenizer.padding_side == side
    items = classifier.encode([Example("x", "w1 w2 w3 w4 w5", "w6"), Example("y", "w1", "w2")])
    with torch.no_grad():
        together = classifier.logits(classifier.collate(items))
        alone = torch.cat([classifier.logits(classifier.collate([item])) for item in items])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_padding_and_truncation_of_the_tokenizer_file_are_switched_off(tiny_model, load_tiny, tmp_path):
    folder = shutil.copytree(tiny_model("bert"), tmp_path / "model")
    document = json.loads((folder / "tokenizer.json").read_text())
    document["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    document["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer.json").write_text(json.dumps(document))
    text_encoder = load_tiny(folder).text_encoder
    for _ in range(2):
        assert len(ids(text_encoder, "w1", "w2")) == 5
        assert (len(ids(text_encoder, "w1 " * 20)), ids(text_encoder, "w1 " * 20).truncated) == (22, False)
        assert len(ids(text_encoder, "w1 " * 90)) == 64  # truncating one leaves the next alone


# truncation


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize(("first", "second"), [(60, 60), (100, 3), (3, 100)])
def test_truncation_keeps_some_of_both_texts(kind, first, second):
    text_encoder = encoder(kind, max_length=24)
    item = ids(text_encoder, " ".join(["w20"] * first), " ".join(["w30"] * second))
    kept = words(text_encoder, item.input_ids)
    assert (len(kept), item.truncated) == (24, True)
    assert kept[0] in ("[CLS]", "<s>")
    assert kept[-1] in ("[SEP]", "</s>")
    assert min(kept.count("w20"), kept.count("w30")) >= min(first, second, 9)  # the longer text is cut first
    if item.token_type_ids is not None:
        assert len(item.token_type_ids) == 24
        assert item.token_type_ids.count(1) == kept.count("w30") + 1


def test_a_single_text_keeps_its_beginning():
    text_encoder = encoder(max_length=10)
    item = ids(text_encoder, " ".join(f"w{index}" for index in range(30)))
    assert words(text_encoder, item.input_ids) == ["[CLS]", *(f"w{index}" for index in range(8)), "[SEP]"]


def test_what_just_fits_is_not_truncated():
    text_encoder = encoder(max_length=10)
    assert not ids(text_encoder, "w1 " * 8).truncated
    assert ids(text_encoder, "w1 " * 9).truncated


def test_one_long_text_does_not_change_its_neighbours():
    text_encoder = encoder(max_length=16)
    rows = [Example("a", "w1", "w2"), Example("b", "w3 " * 99, "w4"), Example("c", "w5", "w6")]
    items = text_encoder.encode(rows)
    assert [item.example_index for item in items] == [0, 1, 2]
    assert [item.truncated for item in items] == [False, True, False]
    assert items[2].input_ids == ids(text_encoder, "w5", "w6").input_ids


def test_empty_texts_are_texts():
    text_encoder = encoder()
    assert words(text_encoder, ids(text_encoder, "").input_ids) == ["[CLS]", "[SEP]"]
    assert words(text_encoder, ids(text_encoder, "", "").input_ids) == ["[CLS]", "[SEP]", "[SEP]"]
    assert text_encoder.encode([]) == []


# windows


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("pair", [None, "w58 w59"])
def test_windows_cover_the_whole_text_and_carry_its_row(kind, pair):
    # more rows than labels must never shift the labels (huggingface/transformers#10682)
    text_encoder = encoder(kind, max_length=20, windows=True, stride=4)
    text = [f"w{index}" for index in range(50)]
    rows = [Example("a", "w1", pair), Example("b", " ".join(text), pair), Example("c", "w2", pair)]
    items = text_encoder.encode(rows)
    assert [item.example_index for item in items] == [0, *[1] * (len(items) - 2), 2]
    parts = []
    for item in items[1:-1]:
        assert len(item) <= 20
        assert not item.truncated
        found = [word for word in words(text_encoder, item.input_ids) if word[0] == "w"]
        if pair:
            assert found[-2:] == ["w58", "w59"]
            found = found[:-2]
        parts.append(found)
    for before, after in pairwise(parts):
        assert before[-4:] == after[:4]  # the stride
    assert [word for index, part in enumerate(parts) for word in part[4 * (index > 0) :]] == text


def test_a_second_text_that_fills_the_window_is_truncated_instead():
    text_encoder = encoder(max_length=20, windows=True, stride=4)
    (item,) = text_encoder.encode([Example("x", "w1 " * 50, "w2 " * 50)])
    assert (len(item), item.truncated) == (20, True)


def test_windows_leave_room_for_virtual_tokens():
    text_encoder = encoder(max_length=24, windows=True, stride=2)
    assert max(map(len, text_encoder.encode([Example("x", "w1 " * 99, "w2")], reserve=8))) == 16


# limits


@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("bert", 80),
        ("distilbert", 80),
        ("roberta", 78),
        ("xlm-roberta", 78),
        ("mpnet", 78),
        ("camembert", 78),
        ("luke", 78),
    ],
)
def test_positions_an_architecture_never_uses_are_left_out(kind, limit):
    sizes = {"dim" if kind == "distilbert" else "hidden_size": 12, "max_position_embeddings": 80, "pad_token_id": 1}
    config = AutoConfig.for_model(kind, **sizes)
    assert position_limit(config, SimpleNamespace(model_max_length=10**30)) == limit
    assert position_limit(config, SimpleNamespace(model_max_length=None)) == limit
    assert position_limit(config, SimpleNamespace(model_max_length=40)) == 40


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_longest_input_a_model_takes_runs_and_one_more_would_not(kind, tiny_model, load_tiny, nli_task, tmp_path):
    from entailor.classifiers.transformer import TransformerClassifier

    folder = shutil.copytree(tiny_model(kind), tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 10**30}))
    classifier = TransformerClassifier(load_tiny(folder, max_length=1000), nli_task)
    assert classifier.text_encoder.max_length == (78 if kind in ("roberta", "mpnet") else 80)
    with torch.no_grad():
        assert torch.isfinite(
            classifier.logits(classifier.collate(classifier.encode([Example("x", "w1 " * 99, "")])))
        ).all()
    if kind in ("bert", "roberta", "mpnet", "electra"):
        classifier.text_encoder.max_length += 1
        with pytest.raises((IndexError, RuntimeError)):
            classifier.logits(classifier.collate(classifier.encode([Example("x", "w1 " * 99, "")])))


def test_too_many_virtual_tokens_are_an_error():
    text_encoder = encoder(max_length=30)
    assert text_encoder.room_beside(22) == 8
    with pytest.raises(ModelError, match=r"23 virtual tokens leave 7 of 30 positions for text, at least 8"):
        text_encoder.encode([Example("x", "w1")], reserve=23)


def test_a_tokenizer_without_a_pad_token_is_refused():
    tokenizer = make_tokenizer("bert")
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match=r"no pad token\. Set one in tokenizer_config\.json"):
        TextEncoder(tokenizer, make_config("bert", len(tokenizer), 0), 64)


def test_roberta_pads_with_one():
    assert ROBERTA_SPECIALS[0] == "<pad>"
    assert encoder("roberta").tokenizer.pad_token_id == 1
