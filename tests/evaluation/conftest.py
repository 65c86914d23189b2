"""Synthetic records whose accuracy is known by construction."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from entailor.runs.record import Costs, Prediction, RunRecord

LABELS = ("entailment", "neutral", "contradiction")


def make_record(
    name: str = "lora",
    *,
    model: str = "org/tiny",
    seed: int = 0,
    accuracy: float = 0.7,
    n: int = 300,
    labels: Sequence[str] = LABELS,
    **fields: object,
) -> RunRecord:
    """Return a record that is right on a seeded random share of `n` balanced examples."""
    generator = np.random.default_rng([seed, len(name), round(1000 * accuracy)])
    predictions = []
    for i in range(n):
        gold = i % len(labels)
        said = gold if generator.random() < accuracy else (gold + 1) % len(labels)
        weights = generator.random(len(labels))
        weights[said] += 1.0
        weights /= weights.sum()
        predictions.append(
            Prediction(
                id=f"ex{i}",
                label=labels[gold],
                probabilities=dict(zip(labels, weights.tolist(), strict=True)),
                group=("fiction", "travel")[i // len(labels) % 2],
                text=f"premise {i}",
                text_pair=f"hypothesis {i}",
            )
        )
    values = {"method": name, "costs": Costs(train_seconds=10.0, stored_bytes=1000), **fields}
    return RunRecord(model=model, name=name, seed=seed, labels=tuple(labels), predictions=tuple(predictions), **values)


@pytest.fixture
def record() -> Callable[..., RunRecord]:
    return make_record
