import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from tests.kill import environment

from entailor.report import plots
from entailor.runs.record import CurvePoint


@pytest.fixture
def figures(comparison, records):
    rows = comparison["candidates"]
    names = [row["method"] for row in rows]
    curves = [[record.curve for record in records if record.name == name] for name in names]
    return {
        "loss": plots.loss_by_epoch(names, curves),
        "validation": plots.validation_accuracy_by_epoch(names, curves),
        "forest": plots.accuracy_with_intervals(names, rows, comparison["majority_accuracy"]),
        "time": plots.accuracy_by_train_time(names, rows),
        "memory": plots.accuracy_by_memory(names, rows),
        "latency": plots.accuracy_by_latency(names, rows),
        "stored": plots.accuracy_by_stored(names, rows),
        "reliability": plots.reliability(names, rows),
        "calibrated": plots.reliability_calibrated(names, rows),
        "coverage": plots.accuracy_by_coverage(names, rows),
        **{f"swatch{i}": plots.swatch(i) for i in range(len(rows))},
    }


def test_figures_are_whole_svg_and_refer_to_nothing_outside(figures):
    for name, svg in figures.items():
        ET.fromstring(svg)
        assert set(re.findall(r"https?://[^\"' <]+", svg)) == {"http://www.w3.org/2000/svg"}, name
        assert "<style" not in svg  # would reach the whole page
        assert len(svg) < 80_000


def test_ids_do_not_clash_on_one_page(figures):
    ids = [found for svg in figures.values() for found in re.findall(r'\bid="([^"]+)"', svg)]
    assert ids
    assert len(ids) == len(set(ids))
    referred = {found for svg in figures.values() for found in re.findall(r'(?:href="|url\()#([^")]+)', svg)}
    assert referred <= set(ids)


def test_figures_are_the_same_each_time(comparison, figures):
    rows = comparison["candidates"]
    assert plots.accuracy_by_memory([row["method"] for row in rows], rows) == figures["memory"]


def test_text_is_text_and_ink_is_the_pages(figures):
    assert ">lora</text>" in figures["forest"]
    assert "currentColor" in figures["forest"]
    assert plots.INK not in "".join(figures.values())
    assert "font-family" not in figures["forest"]


def test_every_row_has_its_colour_in_every_figure(figures):
    for name in ("forest", "time", "memory", "latency", "stored", "reliability", "calibrated", "coverage"):
        for i in range(8):
            colour = plots.style(i).colour
            assert ("currentColor" if colour == plots.INK else colour) in figures[name]


def test_looks_differ_for_32_rows():
    assert len({(look.colour, look.marker, str(look.dash)) for look in map(plots.style, range(32))}) == 32


def test_training_free_rows_have_a_place_on_the_time_axis(figures):
    assert ">none</text>" in figures["time"]


def test_hostile_and_foreign_names_are_drawn_as_text(comparison):
    name = '<script>alert("x")</script> $\\frac$ 模型'
    rows = comparison["candidates"][:1]
    for svg in (plots.accuracy_with_intervals([name], rows, 0.3), plots.accuracy_by_memory([name], rows)):
        ET.fromstring(svg)
        assert "<script" not in svg


def test_what_was_not_measured_is_not_drawn(comparison):
    row = {**comparison["candidates"][0], "latency_p50_ms": None, "calibrated": None, "coverage": []}
    assert plots.accuracy_by_latency(["lora"], [row]) is None
    assert plots.reliability_calibrated(["lora"], [row]) is None
    assert plots.accuracy_by_coverage(["lora"], [row]) is None


def test_rows_on_the_front_of_a_cost_are_ringed(comparison):
    row = {**comparison["candidates"][0], "pareto_by": ["memory"]}
    rings = [plots.accuracy_by_memory(["lora"], [{**row, "pareto_by": by}]) for by in (["memory"], ["latency"])]
    assert rings[0].count("<path") > rings[1].count("<path")


def test_letters_stand_beside_the_intervals(comparison, figures):
    for row in comparison["candidates"]:
        assert f">{row['group']}</text>" in figures["forest"]


def test_no_curves_no_plot():
    assert plots.loss_by_epoch(["majority"], [[()]]) is None
    assert plots.validation_accuracy_by_epoch(["a"], [[(CurvePoint(1, 0.1, train_loss=1.0),)]]) is None


def test_long_curves_are_thinned_and_keep_their_end():
    curve = tuple(CurvePoint(i, i / 1000, train_loss=1.0 + (i == 5000)) for i in range(1, 5001))
    svg = plots.loss_by_epoch(["lora"], [[curve]])
    assert svg is not None
    assert len(svg) < 30_000
    points = plots._mean_curve([curve], "train_loss")
    assert points[-1] == (5.0, 2.0)
    assert len(points) <= plots.MOST_POINTS + 1


def test_seeds_are_averaged():
    one, two = (
        (CurvePoint(1, 1.0, validation_loss=1.0),),
        (CurvePoint(1, 1.0, validation_loss=2.0), CurvePoint(2, 2.0, validation_loss=0.5)),
    )
    assert plots._mean_curve([one, two], "validation_loss") == [(1.0, 1.5), (2.0, 0.5)]


def test_one_trained_row_alone_still_has_ticks(comparison):
    row = {**comparison["candidates"][0], "train_seconds": 30.0}
    assert "30 s" in plots.accuracy_by_train_time(["lora"], [row])
    free = {**row, "train_seconds": 0.0}
    assert "none" in plots.accuracy_by_train_time(["majority"], [free])


def test_a_backend_that_is_not_there_stops_no_report():
    """Notebooks set MPLBACKEND for the commands they start, to what need not be installed beside them."""
    code = "from entailor.report import plots; plots._import_matplotlib(); print(plots.os.environ['MPLBACKEND'])"
    values = {**environment(), "MPLBACKEND": "module://no_such_thing"}
    done = subprocess.run([sys.executable, "-c", code], env=values, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "module://no_such_thing\n"), done.stderr
