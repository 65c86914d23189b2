"""T2: training against the recipe that pads every pair to 128 tokens, batches of 8, on the same batches, in fp32."""

from __future__ import annotations

from measure import arguments, gemm_peak, in_turn, ratios, read_rows, report, spread
from training import METHODS, Contest, default_model

GOAL = 8.0
PADDED = 128


def main() -> None:
    options = arguments(__doc__ or "", steps=20, methods="lora,full_finetuning,p_tuning_peft")
    rows, folder = read_rows(options.data, 2000), default_model()
    result = {"gemm_gflops": gemm_peak(), "goal": GOAL, "methods": {}}
    for name in options.methods.split(","):
        assert name in METHODS
        contest = Contest(name, folder, rows)
        fitting = [item for item in contest.inputs if len(item) <= PADDED]  # the recipe cuts longer ones off
        contest.rows = [rows[item.example_index] for item in fitting]
        contest.__post_init__()
        batches = contest.grouped_batches(options.steps)
        speeds = in_turn(
            options.repeats,
            ours=lambda contest=contest, batches=batches: contest.run_ours(batches)[0],
            peer=lambda contest=contest, batches=batches: contest.run_peer(batches, pad_to=PADDED)[0],
        )
        result["methods"][name] = {
            "ratio": ratios(speeds["ours"], speeds["peer"]),
            "ours_examples_per_second": spread(speeds["ours"]),
            "peer_examples_per_second": spread(speeds["peer"]),
            "tokens_per_example": contest.tokens(batches),
        }
        report("T2", result, options.out)  # after each method, so that a run cut short leaves what it has


if __name__ == "__main__":
    main()
