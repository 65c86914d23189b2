import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import DECODERS, ENCODERS, FP32, NLI_LABELS, make_examples

from entailor.classifiers.transformer import TransformerClassifier
from entailor.errors import ModelError
from entailor.models.load import load_backbone, quiet_libraries
from entailor.models.resolve.source import ModelFolder
from entailor.tasks import Task

NEW_MODULES = {
    "bert": ("bert.pooler.dense", "classifier"),
    "distilbert": ("classifier", "pre_classifier"),
    "deberta-v2": ("classifier", "pooler"),
    "modernbert": ("classifier", "head"),
}


@pytest.fixture
def copied(tiny_model, tmp_path):
    """Return a copy of a tiny checkpoint that may be spoiled."""

    def copy(kind="bert"):
        return shutil.copytree(tiny_model(kind), tmp_path / kind)

    return copy


def change_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize("kind", ENCODERS)
def test_what_the_checkpoint_did_not_carry_is_named(kind, load_tiny, nli_task):
    backbone = load_tiny(kind)
    assert backbone.new_modules == NEW_MODULES.get(kind, ("classifier",))
    assert backbone.model.config.id2label == dict(enumerate(nli_task.labels))
    assert backbone.model.config.label2id == {label: index for index, label in enumerate(nli_task.labels)}
    assert not backbone.model.training
    assert backbone.events == ()


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_encoders_weights_are_the_files(kind, tiny_model, load_tiny):
    saved = load_file(tiny_model(kind) / "model.safetensors")
    model = load_tiny(kind).model
    loaded = getattr(model, model.base_model_prefix).state_dict()
    assert len(saved) > 10
    for name, tensor in saved.items():
        if "pooler" not in name or name in loaded:
            assert torch.equal(loaded[name], tensor), name


def test_half_precision_files_are_computed_in_full(copied, load_tiny):
    folder = copied()
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(folder, dtype="bfloat16")
    assert {tensor.dtype for tensor in load_tiny(folder).model.parameters()} == {torch.float32}


def test_the_seed_decides_the_new_head_and_nothing_else_is_drawn_from(load_tiny):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = (load_tiny("distilbert", seed=seed).model for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name in ("classifier", "pre_classifier"):
        weight = first.get_submodule(name).weight
        assert torch.equal(weight, again.get_submodule(name).weight)
        assert not torch.equal(weight, other.get_submodule(name).weight)


def test_the_length_is_capped_by_the_model(load_tiny):
    assert load_tiny("bert", max_length=32).text_encoder.max_length == 32
    assert load_tiny("bert", max_length=4096).text_encoder.max_length == 64


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_loading_prints_nothing(kind, load_tiny, capfd):
    load_tiny(kind)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_loads_with_a_head_or_as_it_is(kind, load_tiny):
    with_head, as_it_is = load_tiny(kind), load_tiny(kind, objective="language_model")
    assert (with_head.kind, with_head.new_modules) == ("decoder", ("score",))
    assert (as_it_is.kind, as_it_is.new_modules) == ("language_model", ())
    assert not any(parameter.requires_grad for parameter in as_it_is.model.parameters())
    for backbone in (with_head, as_it_is):
        assert backbone.model.config.pad_token_id == backbone.text_encoder.tokenizer.pad_token_id is not None


def test_an_encoder_is_not_asked_for_words(load_tiny):
    with pytest.raises(ModelError, match=r"a bert encoder, which continues no text.*Set head=classifier"):
        load_tiny("bert", objective="language_model")


def test_a_decoder_without_its_output_layer_is_not_asked_for_words(tiny_model, load_tiny, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(tiny_model("llama")).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model("llama")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"1 weights are missing.*lm_head.*set head=classifier"):
        load_tiny(tmp_path, objective="language_model")


def test_windows_are_for_encoders(load_tiny):
    with pytest.raises(ModelError, match="long_texts=windows is for encoders"):
        load_tiny("llama", long_texts="windows")


def test_missing_weights_of_the_encoder_are_refused(copied, load_tiny):
    folder = copied()
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.attention.self.query.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    message = r"1 weights of the encoder are missing.*layer\.1\.attention\.self\.query\.weight.*damaged"
    with pytest.raises(ModelError, match=message):
        load_tiny(folder)


def test_weights_of_another_shape_are_refused(copied, load_tiny):
    folder = copied()
    change_config(folder, intermediate_size=64)
    with pytest.raises(ModelError, match=r"have another shape.*belongs to another configuration"):
        load_tiny(folder)


@pytest.mark.parametrize(("kind", "key"), [("bert", "num_hidden_layers"), ("distilbert", "n_layers")])
def test_layers_that_the_configuration_leaves_out_are_said(kind, key, tiny_model, load_tiny, tmp_path):
    assert load_tiny(kind).warnings == ()
    folder = shutil.copytree(tiny_model(kind), tmp_path / "model")
    change_config(folder, **{key: 1})
    (warning,) = load_tiny(folder).warnings
    assert re.match(r"1[0-9] weights in the files are not used, .*layer\.1\..*Where it gives fewer layers", warning)


def test_layers_that_the_files_lack_are_an_error(copied, load_tiny):
    folder = copied()
    change_config(folder, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"16 weights of the encoder are missing .*layer\.2"):
        load_tiny(folder)


@pytest.mark.parametrize("setting", [{"return_dict": False}, {"torchscript": True}, {"output_hidden_states": True}])
def test_how_a_model_returns_its_results_elsewhere_makes_no_difference(setting, copied, load_tiny, tiny_model):
    folder = copied()
    change_config(folder, **setting)
    ids_BT = torch.tensor([[2, 8, 9, 3]])
    with torch.no_grad():
        found_BL, expected_BL = (load_tiny(one).model(ids_BT).logits for one in (folder, tiny_model("bert")))
    torch.testing.assert_close(found_BL, expected_BL)


def test_an_encoder_without_its_pooler_is_whole(copied, load_tiny):
    folder = copied()
    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if "pooler" not in k}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_tiny(folder).new_modules == ("bert.pooler.dense", "classifier")


@pytest.mark.parametrize("size", [4, 1000])
def test_a_truncated_file_is_refused_wherever_it_is_met(size, copied, load_tiny, nli_task):
    folder = copied()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_tiny(folder)  # when the folder is checked
    from entailor.config.parts import ModelSettings

    with pytest.raises(ModelError, match=r"damaged|cannot be loaded"):  # and when it breaks after that
        load_backbone(ModelFolder("name", folder, "folder", "0" * 64), nli_task, ModelSettings(), FP32, 0)


@pytest.mark.parametrize(
    ("file", "content"),
    [("tokenizer.json", '{"version": "1.0"}'), ("config.json", '{"model_type": "no-such-model"}')],
)
def test_files_that_transformers_cannot_read_are_a_model_error(file, content, copied, load_tiny):
    folder = copied()
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=r"cannot be loaded|cannot be used|damaged") as caught:
        load_tiny(folder)
    assert str(folder) in str(caught.value)


def test_pickled_weights_are_never_loaded(copied, nli_task):
    from entailor.config.parts import ModelSettings

    folder = copied()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot be loaded"):
        load_backbone(ModelFolder("name", folder, "folder", "0" * 64), nli_task, ModelSettings(), FP32, 0)


# the tokenizer and the embeddings


def with_token(folder, target, token, **kind):
    """Copy a checkpoint and add a token to its tokenizer alone."""
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    shutil.copytree(folder, target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    tokenizer.add_tokens([AddedToken(token, **kind)], special_tokens=kind.get("special", False))
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize(
    ("kind", "objective"), [("bert", "classify"), ("llama", "classify"), ("gpt2", "language_model")]
)
def test_a_token_without_a_row_is_an_error_and_the_advice_works(tiny_model, load_tiny, tmp_path, kind, objective):
    from transformers import AutoModel, AutoModelForCausalLM

    folder = with_token(tiny_model(kind), tmp_path / "model", "brandnew")
    with pytest.raises(ModelError, match=r"knows 1 tokens that its embeddings have no row for.*'brandnew'") as caught:
        load_tiny(folder, objective=objective)
    rows = int(re.search(r"resize_token_embeddings\((\d+)\)", str(caught.value))[1])
    model = (AutoModelForCausalLM if objective == "language_model" else AutoModel).from_pretrained(folder)
    model.resize_token_embeddings(rows)
    model.save_pretrained(folder)
    assert load_tiny(folder, objective=objective)


@pytest.mark.parametrize(
    ("file", "change", "remedy"),
    [
        ("tokenizer.json", lambda held: held["model"]["vocab"].update(w5=2**31), "'w5' has the id 2147483648.*Get the"),
        (
            "tokenizer_config.json",
            lambda held: held.update(model_max_length=4),
            "leave 4 .*correct model_max_length in",
        ),
    ],
)
def test_absurd_numbers_of_a_tokenizer_are_not_to_be_followed(tiny_model, load_tiny, tmp_path, file, change, remedy):
    """Two thousand million rows, or fewer virtual tokens than none, would help nobody."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("bert"), folder)
    held = json.loads((folder / file).read_text())
    change(held)
    (folder / file).write_text(json.dumps(held))
    with pytest.raises(ModelError, match=remedy) as caught:
        load_tiny(folder).text_encoder.encode(make_examples(1))
    assert "resize" not in str(caught.value)
    assert "num_virtual_tokens" not in str(caught.value)


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "gpt2"])
def test_a_pad_token_without_a_row_gives_way_to_another(tiny_model, load_tiny, tmp_path, kind):
    folder = with_token(tiny_model(kind), tmp_path / "model", "<newpad>", special=True)
    change(folder / "tokenizer_config.json", pad_token="<newpad>")
    backbone, plain = load_tiny(folder), load_tiny(kind)
    assert backbone.text_encoder.tokenizer.pad_token_id < backbone.model.get_input_embeddings().num_embeddings
    rows = make_examples(6, seed=4)
    one, other = (TransformerClassifier(each, Task(NLI_LABELS, is_pair=True)).eval() for each in (backbone, plain))
    with torch.no_grad():
        logits = [each.logits(each.collate(each.encode(rows))) for each in (one, other)]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_without_a_pad_token_takes_another(tiny_model, load_tiny, tmp_path, kind):
    folder = shutil.copytree(tiny_model(kind), tmp_path / "model")
    change(folder / "tokenizer_config.json", pad_token=None)
    assert load_tiny(folder).text_encoder.tokenizer.pad_token_id is not None


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(("asked", "heard"), [(None, False), ("error", False), ("info", True)])
def test_who_asks_transformers_for_more_than_errors_gets_it(monkeypatch, asked, heard):
    from transformers.utils import logging

    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    if asked:
        monkeypatch.setenv("TRANSFORMERS_VERBOSITY", asked)
    before = logging.get_verbosity()
    with quiet_libraries():
        assert (logging.get_verbosity() == before != logging.ERROR) == heard
        assert logging.is_progress_bar_enabled() == heard
