"""Pitfall 7: a training that stays at one class, and says nothing (transformers#6770)."""

import torch
from tests.conftest import NLI_LABELS, make_examples

from entailor import compare


def test_usual_loop_without_warm_up_ends_at_one_class_without_a_word(plain_encoder, load_tiny, nli_task):
    """The recipe of many a script: AdamW at once at full rate, no clipping. Nothing but the accuracy tells."""
    from entailor.classifiers.transformer import TransformerClassifier

    reader = TransformerClassifier(load_tiny("bert"), nli_task)  # tokenises, nothing else
    model, rows = plain_encoder(), make_examples(48, seed=1)
    batch = reader.collate(reader.encode(rows))
    inputs = {"input_ids": batch.ids_BT, "attention_mask": batch.mask_BT, "token_type_ids": batch.types_BT}
    labels = torch.tensor(nli_task.targets(rows))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3.0)
    for _ in range(10):
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        predicted = model(**inputs).logits.argmax(1)
    assert len(predicted.unique()) == 1
    assert len(labels.unique()) == len(NLI_LABELS)


def test_ours_starts_again_with_another_seed_and_then_raises_the_alarm(nli_experiment, tmp_path):
    rows = {"full_finetuning": {"learning_rate": 1e-9, "num_train_epochs": 1}}
    changed = {"methods": rows, "restarts": 1, "seeds": (0,), "out": str(tmp_path / "run")}
    (record,) = compare(nli_experiment.model_copy(update=changed)).records
    events = " ".join(event.text for event in record.events)
    assert "restart: the training with seed 0 collapsed; again with another seed" in events
    assert "ALARM" in events
    assert record.hyperparameters["warmup_ratio"] > 0
    assert record.hyperparameters["max_grad_norm"] > 0
    assert "ALARM" in (tmp_path / "run" / "report.html").read_text("utf-8")
