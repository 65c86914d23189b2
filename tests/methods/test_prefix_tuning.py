import pytest
import torch
from tests.conftest import ENCODERS, make_examples
from torch import nn

from entailor.classifiers.soft_prompt import vocabulary_words
from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.methods import build_method
from entailor.methods.prefix_tuning import attention_layers

N = 4
ROWS = make_examples(5, seed=3)


@pytest.fixture
def prefix(load_tiny, nli_task):
    """Return a function: settings to an untrained classifier in evaluation mode, its prefixes made large."""

    def make(kind="bert", seed=0, **settings):
        method = build_method("prefix_tuning", {"num_virtual_tokens": N, **settings})
        classifier = method.adapt(load_tiny(kind, seed=seed), nli_task, seed)
        with torch.no_grad():
            classifier.prefix_K2NH.add_(torch.randn(classifier.prefix_K2NH.shape))
        return classifier.eval()

    return make


def last_states(classifier, batch):
    """Return the last hidden states of the real tokens' positions, (B, T, H)."""
    seen = {}
    handle = classifier.head.register_forward_pre_hook(lambda module, args: seen.update(hidden=args[0]))
    with torch.no_grad():
        classifier.logits(batch)
    handle.remove()
    return torch.cat([seen["hidden"][:, :1], seen["hidden"][:, 1 + N :]], dim=1)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_it_equals_attention_over_a_cache(kind, prefix, load_tiny):
    from transformers import DynamicCache

    classifier = prefix(kind)
    batch = classifier.collate(classifier.encode(ROWS))
    plain = load_tiny(kind).model
    body = getattr(plain, plain.base_model_prefix)
    size, length = batch.ids_BT.shape
    cache = DynamicCache()
    for layer, (keys_NH, values_NH) in enumerate(classifier.prefix_K2NH.detach()):
        cache.update(
            *(rows.view(N, 2, -1).transpose(0, 1).repeat(size, 1, 1, 1) for rows in (keys_NH, values_NH)), layer
        )
    # text behind the first token keeps the positions it has behind the virtual tokens; roberta counts from 2
    positions_T = torch.tensor([0, *range(N + 1, N + length)]) + (2 if kind == "roberta" else 0)
    with torch.no_grad():
        expected_BTH = body(
            input_ids=batch.ids_BT,
            attention_mask=torch.cat([batch.mask_BT.new_ones(size, N), batch.mask_BT], dim=1),
            position_ids=positions_T.expand(size, -1),
            past_key_values=cache,
            **({} if batch.types_BT is None else {"token_type_ids": batch.types_BT}),
        ).last_hidden_state
    real = batch.mask_BT.bool()
    torch.testing.assert_close(last_states(classifier, batch)[real], expected_BTH[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_virtual_positions_own_states_are_read_by_nobody(kind, prefix, monkeypatch):
    classifier = prefix(kind)
    batch = classifier.collate(classifier.encode(ROWS))
    before = last_states(classifier, batch)
    width = classifier.prompt().shape[1]
    monkeypatch.setattr(classifier, "prompt", lambda: torch.randn(N, width))
    real = batch.mask_BT.bool()
    torch.testing.assert_close(last_states(classifier, batch)[real], before[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["pair", "mean", "head"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_every_layers_prefix_gets_a_gradient(kind, pooling, prefix):
    classifier = prefix(kind, pooling=pooling).train()
    logits_BL = classifier.logits(classifier.collate(classifier.encode(ROWS)))
    nn.functional.cross_entropy(logits_BL, torch.zeros(len(ROWS), dtype=torch.long)).backward()
    gradient_K2NH = classifier.prefix_K2NH.grad
    assert gradient_K2NH.shape[0] == 2  # layers
    assert (gradient_K2NH.abs().sum(dim=3) > 0).all()  # every layer's keys and values, every virtual token


def test_debertas_relative_positions_go_through_the_same_projection_untouched(prefix, load_tiny):
    classifier = prefix("deberta-v2")
    calls = []
    for attention, names in attention_layers(classifier.body):
        for name in names:
            attention.get_submodule(name).register_forward_hook(lambda *call: calls.append(call))
    with torch.no_grad():
        classifier.logits(classifier.collate(classifier.encode(ROWS)))
    untouched = [
        torch.allclose(output, nn.functional.linear(args[0], module.weight, module.bias), atol=1e-6)
        for module, args, output in calls
    ]
    positional = [args[0].shape[0] == 1 for _, args, _ in calls]
    assert sum(positional) == 2  # once a layer, for the keys
    assert untouched == positional


@pytest.mark.parametrize("kind", ENCODERS)
def test_it_starts_at_what_words_have_in_each_layer(kind, load_tiny, nli_task):
    method = build_method("prefix_tuning", {"num_virtual_tokens": N})
    classifier = method.adapt(load_tiny(kind, seed=5), nli_task, 5)
    plain = load_tiny(kind)
    body = getattr(plain.model, plain.model.base_model_prefix)
    given = []

    def note(module, args, output):
        if args[0].shape[1] == N + 2:  # the words, not deberta's relative positions
            given.extend(output.chunk(3, dim=-1)[1:] if output.shape[-1] == 48 else [output])

    for attention, names in attention_layers(body):
        for name in names:
            attention.get_submodule(name).register_forward_hook(note)
    words = vocabulary_words(plain.text_encoder.tokenizer, N, 5)
    with torch.no_grad():
        (sentence,) = plain.text_encoder.encode([Example("x", plain.text_encoder.tokenizer.decode(words))])
        assert sentence.input_ids[1:-1].tolist() == words
        body(input_ids=torch.tensor([sentence.input_ids]))
    expected_K2NH = torch.stack([output[0, 1 : 1 + N] for output in given]).view(2, 2, N, 16)
    torch.testing.assert_close(classifier.prefix_K2NH.detach(), expected_K2NH)


def test_a_random_start_is_small(load_tiny, nli_task):
    method = build_method("prefix_tuning", {"num_virtual_tokens": 8, "init": "random"})
    first, second = (method.adapt(load_tiny(), nli_task, seed).prefix_K2NH.detach() for seed in (0, 1))
    assert abs(float(first.std()) - 0.02) < 0.002
    assert not torch.equal(first, second)


def test_no_batch_is_kept_in_memory(prefix):
    import gc
    import weakref

    classifier = prefix()
    alive = []
    classifier.body.encoder.layer[0].register_forward_pre_hook(lambda module, args: alive.append(weakref.ref(args[0])))
    with torch.no_grad():
        classifier.logits(classifier.collate(classifier.encode(ROWS)))
    gc.collect()
    assert [ref() for ref in alive] == [None]


def test_layers_of_unknown_names_are_refused(load_tiny, nli_task):
    backbone = load_tiny("bert")
    for layer in backbone.model.bert.encoder.layer:
        attention = layer.attention.self
        attention.kk = attention.key
        del attention.key
    with pytest.raises(MethodError, match=r"no key and value projections of a known name. Use p_tuning or lora"):
        build_method("prefix_tuning", {}).adapt(backbone, nli_task, 0)
