import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import ENCODERS, make_examples
from tests.methods.conftest import in_fresh_process, logprobs, plain_logits, teach

from entailor.config.parts import ModelSettings
from entailor.data.example import Example, Split
from entailor.errors import MethodError, ModelError
from entailor.methods import build_method
from entailor.shipping.restoring import load_classifier
from entailor.study.trial import run_trial
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

N = 5
FAST = {"num_virtual_tokens": N, "num_train_epochs": 1, "per_device_train_batch_size": 8}
ROWS = make_examples(5, seed=3)
ENCODERS_OF_PROMPTS = ["MLP", "LSTM"]


@pytest.fixture
def p_tuning(load_tiny, nli_task):
    """Return a function: settings to a method and its untrained classifier."""

    def make(kind="bert", seed=0, model=None, **settings):
        method = build_method("p_tuning", {**FAST, **settings})
        return method, method.adapt(load_tiny(kind, seed=seed, **(model or {})), nli_task, seed)

    return make


def positions_seen(classifier, batch):
    """Run a batch and return the input embeddings that reach the encoder, and its attention mask."""
    seen = {}

    def look(module, args, kwargs):
        seen.update(kwargs)

    body = getattr(classifier.model, classifier.model.base_model_prefix)
    handle = body.register_forward_pre_hook(look, with_kwargs=True)
    with torch.no_grad():
        classifier.logits(batch)
    handle.remove()
    return seen["inputs_embeds"], seen["attention_mask"]


@pytest.mark.parametrize("pooling", ["pair", "mean", "head"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_virtual_tokens_stand_behind_the_first_token(kind, pooling, p_tuning):
    # in front of it the head would read a virtual token (THUDM/P-tuning-v2#9)
    _, classifier = p_tuning(kind, pooling=pooling)
    batch = classifier.collate(classifier.encode(ROWS))
    embeds_BTE, mask_BT = positions_seen(classifier, batch)
    words_BTE = classifier.model.get_input_embeddings()(batch.ids_BT)
    torch.testing.assert_close(embeds_BTE[:, 0], words_BTE[:, 0])
    torch.testing.assert_close(embeds_BTE[:, 1 : 1 + N], classifier.prompt().expand(len(ROWS), -1, -1))
    torch.testing.assert_close(embeds_BTE[:, 1 + N :], words_BTE[:, 1:])
    assert (mask_BT[:, : 1 + N] == 1).all()
    assert torch.equal(mask_BT[:, 1 + N :], batch.mask_BT[:, 1:])


def test_the_peft_layout_stands_in_front(p_tuning):
    _, classifier = p_tuning(layout="peft")
    batch = classifier.collate(classifier.encode(ROWS))
    seen = {}
    classifier.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        classifier.logits(batch)
    words_BTE = classifier.model.word_embeddings(batch.ids_BT)
    torch.testing.assert_close(seen["inputs_embeds"][:, N:], words_BTE)


@pytest.mark.parametrize("layout", ["after_first", "peft"])
def test_their_room_is_reserved_before_truncation(layout, p_tuning):
    _, classifier = p_tuning(layout=layout, model={"max_length": 24})
    (item,) = classifier.encode([Example("x", "w20 " * 40, "w30 " * 40)])
    assert len(item) == 24 - N
    assert item.truncated
    assert torch.isfinite(classifier.logits(classifier.collate([item]))).all()
    (short,) = classifier.encode([Example("x", "w20 " * 8, "w30 " * 8)])
    assert (len(short), short.truncated) == (19, False)


def test_no_room_for_text_is_an_error_before_the_data_are_read(p_tuning):
    for model in ({"max_length": 12}, None):  # the tiny tokenizer itself stops at 64
        with pytest.raises(ModelError, match=r"virtual tokens leave .* positions for text.*Lower num_virtual_tokens"):
            p_tuning(num_virtual_tokens=60, model=model)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("encoder", ENCODERS_OF_PROMPTS)
def test_the_prompt_starts_at_real_words(kind, encoder, p_tuning):
    _, classifier = p_tuning(kind, encoder_reparameterization_type=encoder)
    prompt_NE = classifier.prompt().detach()
    table_VE = classifier.model.get_input_embeddings().weight.detach()
    nearest = torch.cdist(prompt_NE, table_VE).argmin(dim=1)
    torch.testing.assert_close(prompt_NE, table_VE[nearest], atol=1e-4, rtol=1e-4)
    tokenizer = classifier.text_encoder.tokenizer
    assert not set(nearest.tolist()) & set(tokenizer.all_special_ids)
    assert len(set(nearest.tolist())) == N  # different words
    assert all(token.isalpha() for token in tokenizer.convert_ids_to_tokens(nearest.tolist()))


def test_every_virtual_token_can_go_its_own_way(p_tuning):
    _, classifier = p_tuning()
    prompt_NE = classifier.prompt()
    own = torch.autograd.grad(prompt_NE[0].sum(), classifier.prompt_encoder.embedding.weight)[0]
    assert own[0].abs().sum() > 0
    assert own[1:].abs().sum() == 0


def test_random_start_is_pefts_own(p_tuning):
    from peft import PromptEncoder, PromptEncoderConfig

    _, classifier = p_tuning(init="random", seed=3)
    config = PromptEncoderConfig(
        num_virtual_tokens=N, token_dim=16, num_transformer_submodules=1, encoder_hidden_size=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = PromptEncoder(config)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, classifier.prompt_encoder.state_dict()[name])


@pytest.mark.parametrize("encoder", ENCODERS_OF_PROMPTS)
@pytest.mark.parametrize("kind", ENCODERS)
def test_the_peft_layout_loads_with_plain_peft(kind, encoder, p_tuning, load_tiny, nli_task, tmp_path):
    method, classifier = p_tuning(kind, layout="peft", encoder_reparameterization_type=encoder)
    teach(method, classifier, make_examples(40, seed=1), make_examples(9, seed=2))
    classifier.save(tmp_path)
    batch = classifier.collate(classifier.encode(ROWS))
    with torch.inference_mode():
        logits_BL = classifier.logits(batch).numpy()
    np.testing.assert_allclose(plain_logits("peft_logits", tmp_path, batch, num_labels=3), logits_BL, atol=1e-5)
    # the virtual tokens and the head, and not the network that made them
    assert set(load_file(tmp_path / "adapter_model.safetensors")) == {
        "prompt_embeddings",
        *(name for name in classifier.stored_tensors() if name.startswith("base_model.")),
    }
    fresh = method.adapt(load_tiny(kind, seed=1), nli_task, 1)
    fresh.load(tmp_path)
    np.testing.assert_allclose(logprobs(fresh, ROWS), logprobs(classifier, ROWS), atol=1e-5)


@pytest.mark.parametrize("layout", ["after_first", "peft"])
def test_the_head_has_its_own_learning_rate(layout, p_tuning):
    method, classifier = p_tuning(layout=layout, pooling="head", learning_rate=0.03, head_learning_rate=0.002)
    rates = {
        id(tensor): group.learning_rate for group in method.parameter_groups(classifier) for tensor in group.parameters
    }
    by_name = {name: rates[id(p)] for name, p in classifier.named_parameters() if p.requires_grad}
    assert {rate for name, rate in by_name.items() if "classifier" in name} == {0.002}
    assert {rate for name, rate in by_name.items() if "prompt_encoder" in name} == {0.03}


def test_both_poolings_train_what_they_read_with(p_tuning):
    _, mean = p_tuning(pooling="mean")
    assert {name for name, p in mean.named_parameters() if p.requires_grad and "prompt" not in name} == {
        "head.dense.weight",
        "head.dense.bias",
        "head.out.weight",
        "head.out.bias",
    }
    _, own = p_tuning(pooling="head")
    assert {name for name, p in own.named_parameters() if p.requires_grad and "prompt" not in name} == {
        "model.bert.pooler.dense.weight",
        "model.bert.pooler.dense.bias",
        "model.classifier.weight",
        "model.classifier.bias",
    }


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_second_text_begins_behind_the_first_separator(kind, p_tuning):
    _, classifier = p_tuning(kind)
    assert classifier.pooling == "pair"
    batch = classifier.collate(classifier.encode(ROWS))
    tokenizer = classifier.text_encoder.tokenizer
    second_BT = classifier._second_text(batch)
    for row, ids_T, second_T in zip(ROWS, batch.ids_BT, second_BT, strict=True):
        found = [index for index in ids_T[second_T.bool()].tolist() if index not in tokenizer.all_special_ids]
        assert found == tokenizer(row.text_pair, add_special_tokens=False)["input_ids"]


def test_a_pair_is_read_as_both_texts_and_each(p_tuning):
    _, classifier = p_tuning()
    batch = classifier.collate(classifier.encode(ROWS))
    seen = {}
    classifier.head.register_forward_pre_hook(lambda module, args: seen.update(hidden=args[0], real=args[1]))
    with torch.no_grad():
        logits_BL = classifier.logits(batch)
        rows = []
        for row, length in enumerate(batch.mask_BT.sum(1).tolist()):
            states = torch.cat([seen["hidden"][row, :1], seen["hidden"][row, 1 + N : N + length]])
            cut = batch.ids_BT[row].tolist().index(classifier.separator) + 1
            u, v = states[:cut].mean(0), states[cut:].mean(0)
            features = torch.cat([states.mean(0), u, v, (u - v).abs(), u * v])
            rows.append(classifier.head.out(torch.tanh(classifier.head.dense(features))))
    torch.testing.assert_close(logits_BL, torch.stack(rows))


def test_pooling_pair_is_refused_where_nothing_can_be_compared(load_tiny, nli_task):
    single = Task(nli_task.labels, is_pair=False)
    method = build_method("p_tuning", {**FAST, "pooling": "pair"})
    with pytest.raises(MethodError, match=r"single texts. Set pooling=mean"):
        method.adapt(load_tiny(task=single), single, 0)
    assert build_method("p_tuning", FAST).adapt(load_tiny(task=single), single, 0).pooling == "mean"


def test_the_mean_is_over_real_tokens_only(p_tuning):
    _, classifier = p_tuning(pooling="mean")
    batch = classifier.collate(classifier.encode(ROWS))
    seen = {}
    classifier.head.register_forward_pre_hook(lambda module, args: seen.update(hidden=args[0], real=args[1]))
    with torch.no_grad():
        logits_BL = classifier.logits(batch)
        rows = []
        for row, length in enumerate(batch.mask_BT.sum(1).tolist()):
            states = torch.cat([seen["hidden"][row, :1], seen["hidden"][row, 1 + N : N + length]])
            rows.append(classifier.head.out(torch.tanh(classifier.head.dense(states.mean(0)))))
    torch.testing.assert_close(logits_BL, torch.stack(rows))


def test_dropout_is_off_in_the_frozen_encoder(p_tuning):
    _, classifier = p_tuning()
    batch = classifier.collate(classifier.encode(ROWS))
    classifier.train()
    with torch.no_grad():
        assert torch.equal(classifier.logits(batch), classifier.logits(batch))


@pytest.mark.parametrize("pooling", ["pair", "mean", "head"])
def test_a_saved_trial_loads_in_a_fresh_process(pooling, tiny_model, nli_task, tmp_path):
    method = build_method("p_tuning", {**FAST, "pooling": pooling})
    plan = TrialPlan("row", method, str(tiny_model("bert")), 0, ModelSettings(precision="fp32"), restarts=0)
    split = Split(tuple(make_examples(40, seed=1)), tuple(make_examples(9, seed=2)), tuple(ROWS))
    record = run_trial(plan, nli_task, split, tmp_path / "trial")
    assert record.status == "complete", record.error
    assert record.costs.stored_parameters < record.costs.trainable_parameters
    scores = logprobs(load_classifier(tmp_path / "trial"), ROWS)
    texts = [(row.text, row.text_pair) for row in ROWS]
    elsewhere = in_fresh_process("entailor_logits", folder=str(tmp_path / "trial"), texts=texts)
    np.testing.assert_allclose(elsewhere, scores, atol=1e-5)
    said = [[row.probabilities[label] for label in nli_task.labels] for row in record.predictions]
    np.testing.assert_allclose(np.exp(elsewhere), said, atol=1e-5)
