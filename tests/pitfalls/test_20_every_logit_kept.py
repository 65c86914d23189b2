"""Pitfall 20: evaluation runs out of memory by keeping every logit (transformers#15466)."""

import numpy as np
import torch
from tests.conftest import NLI_LABELS, make_examples
from tests.methods.conftest import logprobs
from tests.pitfalls.conftest import make_plain_tokenizer
from transformers import LlamaForCausalLM

from entailor.classifiers.transformer import TransformerClassifier
from entailor.methods import build_method


def test_usual_trainer_keeps_one_number_for_every_word_of_the_vocabulary_at_every_position(tiny_decoder, tmp_path):
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    tokenizer = make_plain_tokenizer(pad="</s>")
    rows = [tokenizer(row.text) for row in make_examples(6, seed=3)]
    arguments = TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True)
    trainer = Trainer(
        tiny_decoder(LlamaForCausalLM, use_cache=False), arguments, data_collator=DataCollatorWithPadding(tokenizer)
    )
    predictions = trainer.predict(rows).predictions
    longest = max(len(row["input_ids"]) for row in rows)
    assert predictions.shape == (6, longest, len(tokenizer))


def test_ours_keeps_one_number_a_label(load_tiny, nli_task):
    classifier = TransformerClassifier(load_tiny("bert"), nli_task)
    scores = logprobs(classifier, make_examples(30, seed=3), max_tokens=64)
    assert scores.shape == (30, 3)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1.0)
    assert torch.is_grad_enabled()


def test_ours_computes_the_vocabulary_at_no_other_place_than_the_label(load_tiny, nli_task):
    """A prompt is as long as its text, and the output layer sees the few positions that label words are read at."""
    classifier = build_method("in_context", {}).adapt(load_tiny("llama", objective="language_model"), nli_task, 0)
    rows = make_examples(6, seed=3)
    inputs = classifier.encode(rows)
    assert max(map(len, inputs)) < 100
    sizes = []
    hook = classifier.model.lm_head.register_forward_hook(lambda module, args, output: sizes.append(output.numel()))
    assert logprobs(classifier, rows).shape == (6, 3)
    hook.remove()
    words = len(classifier.text_encoder.tokenizer)
    longest = max(len(ids) for item in inputs for ids in item.continuations)
    assert max(sizes) <= len(rows) * len(NLI_LABELS) * longest * words
