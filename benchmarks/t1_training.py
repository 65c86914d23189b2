"""T1: training against Trainer + peft on the same batches: dynamic padding and group_by_length, or texts of one length.

With ``--precision bf16`` ours in bf16 beside ours in fp32 and the peer in fp32 and under its own autocast (T1b).
"""

from __future__ import annotations

from typing import Any

from measure import arguments, gemm_peak, in_turn, ratios, read_rows, report, spread
from training import METHODS, Contest, default_model, largest_gap

GOAL = {"fp32": {"ours / peer": 1.6}, "bf16": {"ours / peer": 3.0, "ours / peer_bf16": 2.0}}


def run(contest: Contest, steps: int, repeats: int) -> dict[str, Any]:
    """Train in turn; return ratios of speed, examples a second and milliseconds a step."""
    batches = contest.random_batches(steps) if contest.length else contest.grouped_batches(steps)
    contestants = {
        "ours": lambda: contest.run_ours(batches)[0],
        "peer": lambda: contest.run_peer(batches, half=False)[0],
    }
    if contest.bf16:
        whole = Contest(contest.name, contest.folder, contest.rows, contest.batch_size, length=contest.length)
        contestants["ours_fp32"] = lambda: whole.run_ours(batches)[0]
        contestants["peer_bf16"] = lambda: contest.run_peer(batches, half=True)[0]
    speeds = in_turn(repeats, **contestants)
    return {
        **{f"ours / {name}": ratios(speeds["ours"], speeds[name]) for name in speeds if name != "ours"},
        "examples_per_second": {name: spread(found) for name, found in speeds.items()},
        "ms_per_step": {name: spread([1e3 * contest.batch_size / one for one in speeds[name]]) for name in speeds},
        "tokens_per_example": contest.tokens(batches),
    }


def main() -> None:
    options = arguments(
        __doc__ or "", steps=50, methods=",".join(METHODS), skip_losses=0, precision="fp32", batches="8x0"
    )
    rows, folder = read_rows(options.data, 2000), default_model()
    goal = GOAL[options.precision]
    result: dict[str, Any] = {"gemm_gflops": gemm_peak(), "precision": options.precision, "goal": goal, "methods": {}}
    for name in options.methods.split(","):
        for shape in options.batches.split(","):
            size, length = map(int, shape.split("x"))  # a length of 0: texts as they are
            contest = Contest(name, folder, rows, size, bf16=options.precision == "bf16", length=length)
            found = run(contest, options.steps, options.repeats)
            result["methods"][f"{name} {shape}" if length else name] = found
            if not (options.skip_losses or length or options.precision == "bf16"):
                found["largest_loss_gap_20_steps"] = largest_gap(name, folder, rows)
            report("T1", result, options.out)  # after each, so that a run cut short leaves what it has


if __name__ == "__main__":
    main()
