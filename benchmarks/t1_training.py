"""T1: training against Trainer + peft with dynamic padding and group_by_length, on the same batches, in fp32."""

from __future__ import annotations

from measure import arguments, gemm_peak, in_turn, ratios, read_rows, report, spread
from training import METHODS, Contest, default_model, largest_gap

GOAL = 1.6


def main() -> None:
    options = arguments(__doc__ or "", steps=50, methods=",".join(METHODS), skip_losses=0)
    rows, folder = read_rows(options.data, 2000), default_model()
    result = {"gemm_gflops": gemm_peak(), "goal": GOAL, "methods": {}}
    for name in options.methods.split(","):
        contest = Contest(name, folder, rows)
        batches = contest.grouped_batches(options.steps)
        speeds = in_turn(
            options.repeats,
            ours=lambda contest=contest, batches=batches: contest.run_ours(batches)[0],
            peer=lambda contest=contest, batches=batches: contest.run_peer(batches)[0],
        )
        result["methods"][name] = {
            "ratio": ratios(speeds["ours"], speeds["peer"]),
            "ours_examples_per_second": spread(speeds["ours"]),
            "peer_examples_per_second": spread(speeds["peer"]),
            "tokens_per_example": contest.tokens(batches),
            "largest_loss_gap_20_steps": None if options.skip_losses else largest_gap(name, folder, rows),
        }
        report("T1", result, options.out)  # after each method, so that a run cut short leaves what it has


if __name__ == "__main__":
    main()
