"""Scoring with an encoder: Entailor's loop with and without the packed way, on the same rows, in fp32."""

from __future__ import annotations

from typing import Any

import numpy as np
from measure import arguments, gemm_peak, now, ratios, read_rows, report, spread
from training import Contest, default_model

from entailor.engine.batching import SCORING_TOKENS
from entailor.engine.scorer import score


def main() -> None:
    options = arguments(__doc__ or "", rows=600, methods="full_finetuning,lora,p_tuning")
    rows, folder = read_rows(options.data, options.rows), default_model()
    result: dict[str, Any] = {"gemm_gflops": gemm_peak(), "methods": {}}
    for name in options.methods.split(","):
        contest = Contest(name, folder, rows)
        speeds: dict[str, list[float]] = {"packed": [], "plain": []}
        gaps = []
        for _ in range(options.repeats):
            found = {}
            for way, proven in (("packed", None), ("plain", False)):
                contest.classifier.shortcut.proven = proven
                begin = now()
                found[way] = score(contest.classifier, contest.inputs, SCORING_TOKENS)
                speeds[way].append(len(rows) / (now() - begin))
            gaps.append(float(np.abs(found["packed"] - found["plain"]).max()))
        result["methods"][name] = {
            "ratio": ratios(speeds["packed"], speeds["plain"]),
            "packed_examples_per_second": spread(speeds["packed"]),
            "plain_examples_per_second": spread(speeds["plain"]),
            "largest_log_probability_gap": max(gaps),
        }
        report("scoring", result, options.out)


if __name__ == "__main__":
    main()
