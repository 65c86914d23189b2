"""How often the statistics are right where the truth is known.

python benchmarks/simulation.py [--draws 400] [--only power]

Draws what the shipped code reads (right and wrong answers of candidates over seeds) from a model whose truth is set,
and counts: coverage of intervals, false differences, power, wrong recommendations, optimism of the best, learning
curves.
The model is a probit: an answer is right where a standard normal lies below the quantile of the seed's accuracy. Parts
of that normal are shared by a cluster of examples, by all candidates on an example, and by all seeds of a candidate on
it, so that marginal accuracies hold exactly. Two cores, no GPU, no model.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout

import numpy as np
from resampled import resampling
from scipy.stats import chi2, norm
from simulated import CURVES, SIZES, World, curve_of, drawn_outcomes

from entailor.config.parts import Priorities
from entailor.evaluation import recommendation
from entailor.evaluation.calibration import expected_calibration_error
from entailor.evaluation.calibration_error import calibration_error
from entailor.evaluation.learning_curve import describe_curves
from entailor.evaluation.metrics import Outcome, beyond_chance
from entailor.evaluation.pairs import compare_all, compare_scored
from entailor.evaluation.power import detectable_difference, freedom_of_usual, usual_of
from entailor.evaluation.selection import corrected_best
from entailor.evaluation.statistics import accuracy_interval
from entailor.evaluation.targets import TARGETS
from entailor.evaluation.variance import Scored, Spread, spread_of_mean


def difference(a: Scored, b: Scored):
    """Return the difference of two candidates as shipped."""
    return compare_scored(a, b)


def comparisons(candidates: list[Scored]):
    """Return the pairs that are judged significant or not."""
    return compare_all(dict(enumerate(candidates)))


def recommended(candidates: list[Scored]) -> int | None:
    """Return which candidate is recommended where each is cheaper than the one before."""
    order = sorted(range(len(candidates)), key=lambda i: -candidates[i].mean_N.mean())
    lines = [
        {
            "model": "m",
            "method": i,
            "accuracy": {"mean": float(candidates[i].mean_N.mean())},
            "beats_majority": True,
            "latency_p50_ms": 10.0 * 0.5**i,
            "stored_bytes": 1,
            "peak_memory_bytes": 1,
            "peak_gpu_memory_bytes": None,
            "train_seconds": 1.0,
        }
        for i in order
    ]
    pairs = compare_all({("m", i): candidates[i] for i in order})
    pick, _ = recommendation._pick(lines, pairs, Priorities(cheapest=("latency",)))
    return None if pick is None else pick["method"]


def beats_majority(gold_N: np.ndarray, predicted_N: np.ndarray) -> bool:
    """Return whether a single candidate counts as better than the majority baseline."""
    agreement = Scored(beyond_chance(Outcome(gold_N, predicted_N, np.zeros((len(gold_N), 2))))[None])
    return spread_of_mean(agreement).p_below(-agreement.mean) < 0.05


# --- the tables ---------------------------------------------------------------------------------------------------


def share(found: list[bool]) -> float:
    """Return a share in percent."""
    return 100 * float(np.mean(found))


def coverage_of_accuracy(draws: int) -> None:
    """Print how many 95 % intervals of one accuracy hold the truth."""
    print("\ncoverage of accuracy (%), the least and the most over seed deviations 0, 1, 3 points")
    print("accuracy  n      1 seed   3 seeds     5 seeds")
    worst: list[float] = []
    for p in (0.34, 0.6, 0.8, 0.95, 0.99):
        for n in (50, 180, 500, 1000):
            cells = []
            for seeds in (1, 3, 5):
                found = []
                for deviation in (0, 1, 3) if seeds > 1 else (0,):
                    world = World((p,), n, seeds, deviation)
                    truth, rng = world.truth()[0], np.random.default_rng([seeds, n, deviation])
                    intervals = [accuracy_interval(world.draw(rng)[0]) for _ in range(draws)]
                    found.append(share([one.low <= truth <= one.high for one in intervals]))
                worst += found
                cells.append(f"{min(found):.1f}-{max(found):.1f}" if seeds > 1 else f"{found[0]:.1f}")
            print(f"{p:<9.2f} {n:<6} {cells[0]:<8} {cells[1]:<11} {cells[2]}")
    print(f"all {len(worst)} cells: {min(worst):.1f} to {max(worst):.1f}, mean {np.mean(worst):.1f}")


def clustered(draws: int) -> None:
    """Print coverage and false differences where examples come in clusters."""
    print("\nclustered examples: coverage of accuracy, of a difference, and false differences of two equal ones (%)")
    print("n     a cluster  seeds  accuracy  difference  false")
    for n, size in ((200, 5), (1000, 5), (1000, 20)):
        for seeds in (1, 3):
            world = World((0.75, 0.75), n, seeds, 0.0, cluster=size)
            rng, held, both, wrong = np.random.default_rng([n, size, seeds]), [], [], []
            for _ in range(draws):
                a, b = world.draw(rng)
                one, pair = accuracy_interval(a), difference(a, b)
                held.append(one.low <= 0.75 <= one.high)
                both.append(pair.low <= 0 <= pair.high)
                wrong.append(pair.p < 0.05)
            print(f"{n:<5} {size:<10} {seeds:<6} {share(held):<9.1f} {share(both):<11.1f} {share(wrong):.1f}")


def pairs_of_two(draws: int) -> None:
    """Print coverage, false differences and power of one comparison."""
    print("\ntwo candidates near 80 %: coverage at 2 points, false differences at 0, found at 2 and 5 points (%)")
    print("n     seeds  deviation  coverage  false  at 2  at 5")
    for n in (180, 500, 1000):
        for seeds, deviation in ((1, 0), (1, 1), (3, 0), (3, 0.7), (3, 1.5), (3, 3), (5, 0), (5, 1.5)):
            rng, cells = np.random.default_rng([n, seeds, int(10 * deviation)]), {}
            for points in (0, 2, 5):
                world = World((0.8, 0.8 - points / 100), n, seeds, deviation)
                cells[points] = [difference(*world.draw(rng)) for _ in range(draws)]
            held = share([one.low <= 0.02 <= one.high for one in cells[2]])
            found = "  ".join(f"{share([one.p < 0.05 and one.value >= 0 for one in cells[k]]):<4.1f}" for k in (2, 5))
            print(
                f"{n:<5} {seeds:<6} {deviation:<10} {held:<9.1f} {share([o.p < 0.05 for o in cells[0]]):<6.1f} {found}"
            )


def families(draws: int) -> None:
    """Print the rate of runs with any false difference, and power against the best, of eight candidates."""
    print(
        "\neight candidates: runs with a false difference, and the best of them, 5 points ahead, found against each (%)"
    )
    print("n     seeds  deviation  false  best lost  power")
    for n in (180, 500, 1000):
        for seeds, deviation in ((1, 0), (3, 0), (3, 0.7), (3, 1.5), (5, 1.5)):
            rng = np.random.default_rng([n, seeds, int(10 * deviation), 8])
            wrong, ruled_out, found = [], [], []
            for _ in range(draws):
                world = World((0.8,) * 8, n, seeds, deviation)
                equal = comparisons(world.draw(rng))
                wrong.append(any(one.significant for one in equal.differences.values()))
                ruled_out.append(not equal.may_be_best(0))
                ahead = comparisons(World((0.83, *(0.78,) * 7), n, seeds, deviation).draw(rng))
                found += [not ahead.may_be_best(k) for k in range(1, 8)]
            print(
                f"{n:<5} {seeds:<6} {deviation:<10} {share(wrong):<6.1f} {share(ruled_out):<10.1f} {share(found):.1f}"
            )


def few_seeds(draws: int) -> None:
    """Print false differences from the exact distributions, with nothing drawn: examples give the deviation 1."""
    print("\nfalse differences to a deterministic candidate (%), by the deviation of a mean over seeds (examples: 1)")
    print("seeds  level   " + "".join(f"{deviation:<7}" for deviation in DEVIATIONS))
    for seeds in (2, 3, 5):
        shown_Q = chi2.ppf((np.arange(draws) + 0.5) / draws, seeds - 1) / (seeds - 1)  # of the expected variance
        for level in (0.05, 0.05 / 28):
            cells = []
            for deviation in DEVIATIONS:
                spreads = [
                    Spread(1.0, math.inf, shown * (deviation**2 + 0.1), 0.1, float(seeds - 1)) for shown in shown_Q
                ]
                bound_Q = np.array([one.bound(1 - level / 2) for one in spreads])
                cells.append(100 * float(np.mean(2 * norm.sf(bound_Q / math.sqrt(1 + deviation**2)))))
            print(f"{seeds:<6} {100 * level:<7.2f} " + "".join(f"{cell:<7.2f}" for cell in cells), flush=True)


DEVIATIONS = (0.0, 0.3, 1.0, 1.5, 2.5, 5.0, 20.0)


def unequal(draws: int) -> None:
    """Print false differences where the seeds of candidates vary differently, of one pair and of a family."""
    print("\nequal candidates whose seeds do not vary alike, at 80 %: two (one pair), eight (any pair) (%)")
    print("n     seeds  deviations             covered  false   | of eight            any false  best lost")
    pairs = (
        ("none, 1.5", (0, 1.5), 1),
        ("none, 5", (0, 5), 1),
        ("0.3, 5", (0.3, 5), 0),
        ("1, 3", (1, 3), 0),
        ("3, 3", (3, 3), 0),
    )
    eight = (
        ("7 none, 1 of 5", (0,) * 7 + (5,), 7),
        ("4 none, 4 of 5", (0,) * 4 + (5,) * 4, 4),
        ("0 to 3", (0, 0, 0, 0.3, 0.6, 1, 1.5, 3), 3),
        ("8 of 1.5", (1.5,) * 8, 0),
        ("8 of 5", (5,) * 8, 0),
    )
    for n in (180, 1000):
        for seeds in (2, 3, 5):
            for (two, deviations, fixed), (many, spread, still) in zip(pairs, eight, strict=True):
                rng, cells = np.random.default_rng([n, seeds, int(10 * max(deviations)), fixed]), []
                both = World((0.8, 0.8), n, seeds, deviations, deterministic=fixed)
                family = World((0.8,) * 8, n, seeds, spread, deterministic=still)
                found = [difference(*both.draw(rng)) for _ in range(5 * draws)]
                held, false = share([o.low <= 0 <= o.high for o in found]), share([o.p < 0.05 for o in found])
                wholes = [comparisons(family.draw(rng)) for _ in range(draws)]
                cells = [any(one.significant for one in whole.differences.values()) for whole in wholes]
                lost = share([not whole.may_be_best(7) for whole in wholes])
                one = f"{n:<5} {seeds:<6} {two:<22} {held:<8.1f} {false:<7.1f}"
                print(f"{one} | {many:<19} {share(cells):<10.1f} {lost:.1f}", flush=True)


def recommendations(draws: int) -> None:
    """Print how often the cheapest of the candidates is recommended though it is worse, and what that costs."""
    print("\nthe cheap candidate is recommended (%), and the mean loss in points; the others are equal")
    print("candidates  seeds  n     5 points worse  3 points worse  equal")
    for count, seeds in ((2, 1), (8, 3)):
        for n in (180, 500, 1000):
            cells = []
            for points in (5, 3, 0):
                world = World((*(0.8,) * (count - 1), 0.8 - points / 100), n, seeds, 0.7 if seeds > 1 else 0.0)
                rng = np.random.default_rng([count, n, points])
                picks = [recommended(world.draw(rng)) for _ in range(draws)]
                taken = share([one == count - 1 for one in picks])
                cells.append(f"{taken:.0f} (loss {points * taken / 100:.1f})" if points else f"{taken:.0f}")
            print(f"{count:<11} {seeds:<6} {n:<5} {cells[0]:<15} {cells[1]:<15} {cells[2]}")


def imbalance(draws: int) -> None:
    """Print how often a useful and a useless classifier of a rare class count as better than the majority baseline."""
    print(
        "\n5 % positives, recall .60 and false-positive rate .02, against guessing at the same rate (% above baseline)"
    )
    for n in (180, 500, 1000):
        rng, useful, useless = np.random.default_rng(n), [], []
        for _ in range(draws):
            gold_N = (rng.random(n) < 0.05).astype(int)
            if gold_N.sum() == 0:
                continue
            useful.append(beats_majority(gold_N, (rng.random(n) < np.where(gold_N == 1, 0.6, 0.02)).astype(int)))
            useless.append(beats_majority(gold_N, (rng.random(n) < 0.05).astype(int)))
        print(f"n {n:<5} useful {share(useful):.1f}, useless {share(useless):.1f}")


def optimism(draws: int) -> None:
    """Print by how much the best of several looks better than it is, and what remains of that when it is corrected."""
    print("\nbest of eight: optimism in points and coverage of its interval (%), as seen and corrected")
    print("candidates             n     seeds  seen         corrected")
    worlds = {
        "equal": (0.8,) * 8,
        "one 5 points ahead": (0.83, *(0.78,) * 7),
        "three 5 points ahead": (*(0.82,) * 3, *(0.77,) * 5),
        "a point apart": tuple(0.8 - 0.01 * k for k in range(8)),
    }
    for name, accuracies in worlds.items():
        for n in (180, 500, 1000):
            for seeds in (1, 3):
                rng, seen, left = np.random.default_rng([n, seeds, 9]), [], []
                world = World(accuracies, n, seeds, 0.7 if seeds > 1 else 0.0)
                for _ in range(draws):
                    candidates = world.draw(rng)
                    best = int(np.argmax([one.mean for one in candidates]))
                    for found, kept in (
                        (accuracy_interval(candidates[best]), seen),
                        (corrected_best(candidates, TARGETS["accuracy"]), left),
                    ):
                        truth = accuracies[best]
                        kept.append((100 * (found.value - truth), found.low <= truth <= found.high))
                cells = [
                    f"{np.mean([gain for gain, _ in one]):+.1f}, {share([ok for _, ok in one]):.1f}"
                    for one in (seen, left)
                ]
                print(f"{name:<22} {n:<5} {seeds:<6} {cells[0]:<12} {cells[1]}", flush=True)


def metrics(draws: int) -> None:
    """Print coverage of every metric's interval, and false differences of two equal candidates by it."""
    print("\nthree labels (60, 30, 10 %), three seeds: coverage of each metric's interval, false differences (%)")
    print("n     " + "".join(f"{name:<20}" for name in TARGETS))
    truths = {
        name: target.sign
        * np.mean([target.gain(drawn_outcomes(np.random.default_rng(k), 4000), True, None).mean for k in range(25)])
        for name, target in TARGETS.items()
    }
    for n in (180, 500, 1000):
        rng = np.random.default_rng(n)
        held: dict[str, list[bool]] = {name: [] for name in TARGETS}
        wrong: dict[str, list[bool]] = {name: [] for name in TARGETS}
        for _ in range(draws):
            gold_N = rng.choice(3, size=n, p=(0.6, 0.3, 0.1))
            pair = [drawn_outcomes(rng, n, gold_N) for _ in range(2)]
            for name, target in TARGETS.items():
                a, b = (target.gain(one, True, None) for one in pair)
                if not (np.isnan(a.mean) or np.isnan(b.mean)):
                    found = target.interval(a)
                    held[name].append(found.low <= truths[name] <= found.high)
                    wrong[name].append(difference(a, b).p < 0.05)
        print(
            f"{n:<5} " + "".join(f"{share(held[name]):.1f}, {share(wrong[name]):.1f}".ljust(20) for name in TARGETS),
            flush=True,
        )


def curves(draws: int) -> None:
    """Print how often predictions of learning curves hold the truth, and false crossings of equal candidates."""
    print("\nlearning curves, 1,000 test examples, 3 seeds (deviation 1 point), sizes 50 to 800 (%)")
    print("law             twice: predicted, covered, width   ten times: predicted, covered, width")
    for place, (name, law) in enumerate(CURVES.items()):
        rng, held, widths = np.random.default_rng(place), {2: [], 10: []}, {2: [0.0], 10: [0.0]}
        for _ in range(draws):
            document = describe_curves([curve_of("a", law, rng, rng.standard_normal(1000))])["candidates"][0]
            for one in document["predicted"]:
                if one.get("refused") is None:
                    truth = float(law(one["factor"] * SIZES[-1]))
                    held[one["factor"]].append(one["low"] <= truth <= one["high"])
                    widths[one["factor"]].append(one["high"] - one["low"])
        said = [
            f"{100 * len(held[k]) / draws:.0f}, {share(held[k]) if held[k] else float('nan'):.0f}, "
            f"{100 * max(np.median(widths[k]), 0):.0f} points"
            for k in (2, 10)
        ]
        print(f"{name:<15} {said[0]:<34} {said[1]}", flush=True)
    rng, wrong = np.random.default_rng(77), []
    for _ in range(max(1, draws // 2)):
        shared_N = rng.standard_normal(1000)
        found = describe_curves([curve_of(f"c{k}", CURVES["power law"], rng, shared_N) for k in range(8)])
        wrong.append(bool(found["crossings"]))
    print(f"eight equal candidates: a false overtaking in {share(wrong):.0f} % of runs")


def overtaking(draws: int) -> None:
    """Print how often the interval of the number of labels that beats an untrained candidate holds the truth."""
    print(
        "\nlabels at which a trained candidate overtakes an untrained one: interval holds the truth (%), typical ends"
    )
    for place, (name, law) in enumerate(CURVES.items()):
        for truth in (75, 300):
            rng, held, ends = np.random.default_rng([place, truth]), [], []
            for _ in range(draws):
                shared_N = rng.standard_normal(1000)
                level = float(law(truth))
                asked = curve_of("asked", lambda n, level=level: level, rng, shared_N, seeds=1, sizes=(800,))
                (found,) = describe_curves([curve_of("a", law, rng, shared_N)], [asked])["overtakes_untrained"]
                low, high = found["low"] or 0, math.inf if found["high"] is None else found["high"]
                held.append(low <= truth <= high)
                ends.append((low, high))
            typical = ", ".join(f"{end:.0f}" for end in np.median(ends, axis=0))
            print(f"{name:<15} at {truth}: {share(held):.1f}  ({typical})", flush=True)


def power(draws: int) -> None:
    """Print how often the lead that one run says is detectable is found in the next run, the mean over first runs."""
    print("\nlead said to be detectable by a run (80 % of runs between), and how often the next run finds it (%)")
    for count, n in ((2, 1000), (8, 500), (8, 1000)):
        for seeds, deviation in ((1, 0), (3, 0), (3, 0.7), (3, 1.5), (3, 3), (5, 0), (5, 1.5)):
            rng = np.random.default_rng([count, n, seeds, int(10 * deviation), 5])
            said, found = [], []
            for _ in range(draws):
                lead = promised(World((0.8,) * count, n, seeds, deviation).draw(rng))
                said.append(100 * lead)
                world = World((0.8 + lead / 2, *(0.8 - lead / 2,) * (count - 1)), n, seeds, deviation)
                found.append(np.mean(found_best(world.draw(rng))))
            low, high = np.quantile(said, (0.1, 0.9))
            print(
                f"{count} candidates, n {n:<5} seeds {seeds} deviation {deviation:<4}: {np.mean(said):.1f} points "
                f"({low:.1f} to {high:.1f}), found {share(found):.0f}",
                flush=True,
            )


def promised(candidates: list[Scored]) -> float:
    """Return the lead that is said to be found in 4 of 5 runs."""
    spread = usual_of([one.spread for one in comparisons(candidates).differences.values()])
    lead = detectable_difference(spread, len(candidates) - 1, freedom_of_usual(spread, len(candidates)))
    assert lead is not None  # such candidates never answer all alike
    return min(lead, 0.39)  # none of two accuracies near 80 % can be above 1


def found_best(candidates: list[Scored]) -> list[bool]:
    """Return for each other candidate whether it is ruled out as the best by the first."""
    found = comparisons(candidates)
    return [not found.may_be_best(k) for k in range(1, len(candidates))]


def calibration(draws: int) -> None:
    """Print the calibration error said of classifiers that are off by 0, 5 and 10 points, and how often it covers."""
    print("\ncalibration error, root mean square: mean as usual (15 bins), without bias, coverage of its interval (%)")
    for off in (0.0, 0.05, 0.1):
        for n in (50, 180, 1000):
            rng, usual, said, held = np.random.default_rng(n), [], [], []
            for _ in range(draws):
                confidence_N = 0.5 + 0.5 * rng.beta(2, 1, n)
                right_N = rng.random(n) < confidence_N - off
                usual.append(expected_calibration_error(confidence_N, right_N))
                found = calibration_error(confidence_N, right_N)
                said.append(found.value)
                held.append(found.low <= off <= found.high)
            print(
                f"off by {off:.2f}, n {n:<5} {np.mean(usual):.3f}  {np.mean(said):.3f}  {share(held):.1f}", flush=True
            )


TABLES = {  # and how many times as many draws each is given, by what a draw costs; those that take longest first
    "families": (families, 0.5),
    "curves": (curves, 0.5),
    "overtaking": (overtaking, 0.5),
    "unequal": (unequal, 0.5),
    "resampling": (resampling, 0.5),
    "power": (power, 0.5),
    "coverage": (coverage_of_accuracy, 1),
    "clusters": (clustered, 1),
    "pairs": (pairs_of_two, 1),
    "few-seeds": (few_seeds, 1),
    "recommendation": (recommendations, 1),
    "imbalance": (imbalance, 1),
    "optimism": (optimism, 1),
    "metrics": (metrics, 1),
    "calibration": (calibration, 1),
}


def printed(name: str, draws: int) -> str:
    """Return what a table prints, with how well its shares are known and the processor time it took."""
    begin, (table, times) = time.process_time(), TABLES[name]
    draws = max(1, round(times * draws))
    with redirect_stdout(io.StringIO()) as text:
        table(draws)
    error, most = (100 * math.sqrt(share * (1 - share) / draws) for share in (0.05, 0.5))
    return (
        f"{text.getvalue()}({name}: {draws} draws a cell, standard error of 5 % {error:.1f} and of 50 % {most:.1f} "
        f"points; {time.process_time() - begin:.0f} s of processor time)"
    )


def main() -> None:
    """Print every table, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=400, help="comparisons a cell; half of it in the slow tables")
    parser.add_argument("--only", choices=TABLES, action="append", help="a table; may be given several times")
    parser.add_argument("--processes", type=int, default=2, help="tables at a time")
    given = parser.parse_args()
    begin, names = time.perf_counter(), given.only or list(TABLES)
    with ProcessPoolExecutor(given.processes) as pool:
        for text in pool.map(printed, names, [given.draws] * len(names)):
            print(text, flush=True)
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
