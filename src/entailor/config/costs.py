"""What a wrong answer costs, by gold and predicted label."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, NonNegativeFloat

from entailor.config.plain import number_as_text, shown
from entailor.errors import ConfigError, near_miss

MOST_MISTAKES_NAMED = 30  # of six labels


def labels_as_text(value: object) -> object:
    """Return the mapping with label names that YAML read as numbers as text, on both levels."""
    if not isinstance(value, Mapping):
        return value
    if any(isinstance(key, bool) for key in value):
        raise ValueError("YAML takes yes, no, on and off for true and false: put the label in quotes")
    return {str(number_as_text(key)): labels_as_text(inner) for key, inner in value.items()}


Costs = Annotated[dict[str, dict[str, NonNegativeFloat]], BeforeValidator(labels_as_text, json_schema_input_type=Any)]


def cost_matrix(costs: Mapping[str, Mapping[str, float]], labels: Sequence[str], where: str) -> list[list[float]]:
    """Return the cost of each predicted label (columns) for each gold one (rows), in the order of the labels.

    What is right costs nothing unless the mapping says otherwise.

    Args:
        costs: gold label to predicted label to cost.
        labels: of the task.
        where: the key that holds the costs, for messages.

    Raises:
        ConfigError: a label that is none of the task's, a mistake without a cost, or no cost above 0.
    """
    for name in dict.fromkeys((*costs, *(predicted for row in costs.values() for predicted in row))):
        if name not in labels:
            raise ConfigError(
                f"{where}: {shown(name)} is none of the labels {', '.join(map(shown, labels[:20]))}."
                f"{near_miss(name, labels)} Costs stand under gold label, then predicted label"
            )
    mistakes = [(gold, predicted) for gold in labels for predicted in labels if predicted != gold]
    missing = [(gold, predicted) for gold, predicted in mistakes if predicted not in costs.get(gold, {})]
    if missing:
        whole = {gold: dict(costs.get(gold, {})) for gold in labels}
        for gold, predicted in missing:
            whole[gold][predicted] = 1
        word = shlex.quote(f"{where}={json.dumps(whole, ensure_ascii=False)}")
        remedy = f"for example {word}" if len(mistakes) <= MOST_MISTAKES_NAMED else f"{where}.GOLD.PREDICTED=1"
        raise ConfigError(
            f"{where}: {len(missing):,} of {len(mistakes):,} mistakes have no cost, e.g. {shown(missing[0][0])} "
            f"answered as {shown(missing[0][1])}. Write one for each, 0 where it costs nothing: {remedy}"
        )
    matrix = [[costs.get(gold, {}).get(predicted, 0.0) for predicted in labels] for gold in labels]
    if not any(map(any, matrix)):
        raise ConfigError(f"{where}: every cost is 0, so that all candidates are alike. Give what mistakes cost")
    return matrix
