"""Pitfall 18: resume restores the wrong thing (transformers#35850, #29078, #35087)."""

import torch

from entailor import compare


def test_usual_weights_alone_do_not_go_on_where_training_stopped():
    """`torch.save(model.state_dict())` and load: the optimizer's moments are gone, and the end is another."""

    def steps(layer, optimizer, first, last):
        for step in range(first, last):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            layer(x).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    def fresh():
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.05)

    through, optimizer = fresh()
    steps(through, optimizer, 0, 8)
    first, optimizer = fresh()
    steps(first, optimizer, 0, 4)
    second, optimizer = fresh()
    second.load_state_dict(first.state_dict())
    steps(second, optimizer, 4, 8)
    assert not torch.allclose(second.weight, through.weight, atol=1e-3)


def test_ours_redoes_nothing_that_is_complete_and_ends_the_same(nli_experiment, tmp_path):
    """A run that is interrupted between trials: the same command goes on, and the records are those of one run."""
    rows = {"lora": {"r": 2, "num_train_epochs": 1, "learning_rate": 0.03}}
    changed = {"methods": rows, "seeds": (0, 1)}
    whole = compare(nli_experiment.model_copy(update={**changed, "out": str(tmp_path / "whole")}))
    out = {"out": str(tmp_path / "parts")}
    compare(nli_experiment.model_copy(update={**changed, "seeds": (0,), **out}))
    record = next((tmp_path / "parts").rglob("record.json"))
    written = record.stat().st_mtime_ns
    parts = compare(nli_experiment.model_copy(update={**changed, **out}))
    assert record.stat().st_mtime_ns == written
    for one, other in zip(whole.records, parts.records, strict=True):
        assert one.predictions == other.predictions
