"""What a command imports: models' libraries only where a model runs. No clock is read, so load changes nothing."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest

MODELS = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "optuna"}
STATISTICS = {"sklearn", "scipy", "pandas", "matplotlib", "cleanlab", "datasets"}
RUN = """
import json, sys
from entailor.cli.app import main
try:
    main()
    code = 0
except SystemExit as ended:
    code = ended.code or 0
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def imported(*words, place):
    """Return the packages in memory at the end of a command, which must succeed."""
    done = subprocess.run([sys.executable, "-c", RUN, *words], cwd=place, capture_output=True, text=True, check=False)
    code, names = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("words")
    with (place / "train.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows(
            [f"{'good' if index % 2 else 'bad'} film {index}", ["no", "yes"][index % 2]] for index in range(120)
        )
    return place


@pytest.fixture(scope="module")
def after_compare(folder):
    return imported(
        "compare", "--train", "train.csv", "--methods", "majority,bag_of_words", "--out", "run", place=folder
    )


def test_help_imports_neither_models_nor_statistics(tmp_path):
    for words in (("--help",), ("compare", "--help")):
        assert not imported(*words, place=tmp_path) & {*MODELS, *STATISTICS, "numpy", "pyarrow"}


def test_comparing_words_imports_no_library_of_models(after_compare):
    assert after_compare & MODELS == set()
    assert "sklearn" in after_compare  # or the list above says nothing


def test_predicting_with_words_imports_what_words_need(folder, after_compare):
    names = imported("predict", "--run", "run", "--input", "train.csv", "--output", "out.csv", place=folder)
    assert "sklearn" in names
    assert not names & {*MODELS, "matplotlib", "cleanlab", "datasets"}
