"""Hostile and broken inputs, made in code, over every command: one clear error, in bounded time and memory.

A case is a family, a name, and a function that makes files in an empty folder and returns command lines. All of them
run in one process with a limit of memory, each with a limit of time:

    PYTHONPATH=src:. .venv/bin/python -m tests.hostile [--family NAME] [--quick]

prints as JSON what is wrong with each case that is not right. --quick runs one command of each case, another one from
case to case, and draws no figures; so does tests/test_hostile.py.
"""

from __future__ import annotations

from tests.hostile.cases import Case
from tests.hostile.configuration import CONFIG_FILES, LAUGHS, OVERRIDES, SPECIAL, config, override, special
from tests.hostile.inputs import DATA_FILES, MODEL_FILES, MODELS, TEMPLATES, data, model, model_file, template
from tests.hostile.running import limit_memory, time_limit
from tests.hostile.runs import (
    CHANGES,
    DOCUMENTS,
    RECORD,
    RUN_CODES,
    RUN_FILES,
    document,
    experiment_of,
    in_place_of,
    not_a_run,
    odd_folders,
    run_copy,
    shallow,
    sound_run,
    sound_split,
    temporary_folder,
)

__all__ = ["CASES", "Case", "limit_memory", "run_copy", "sound_run", "sound_split", "temporary_folder", "time_limit"]

CASES: list[Case] = [
    *(Case("config", name, config(content)) for name, content in CONFIG_FILES.items()),
    *(Case("config", name, special(make)) for name, make in SPECIAL.items()),
    *(Case("overrides", f"{word[:40]!r}, {len(word)}", override(word)) for word in OVERRIDES),
    *(
        Case("run", f"{name} is {kind}", in_place_of(name, make), RUN_CODES)
        for name in RUN_FILES
        for kind, make in SPECIAL.items()
        if kind in ("a pipe", "a folder", "a link to a device")
    ),
    *(
        Case("run", f"{name}: {kind}", document(name, text), RUN_CODES)
        for name in ("comparison.json", RECORD)
        for kind, text in DOCUMENTS.items()
    ),
    *(Case("run", name, build, RUN_CODES) for name, build in CHANGES.items()),
    Case("run", "alias bomb in experiment.yaml", experiment_of(LAUGHS), RUN_CODES),
    Case("run", "experiment.yaml of numbers", experiment_of("data: 3\nmethods: 4\nrecommend: 5\n"), RUN_CODES),
    Case("run", "experiment.yaml is a list", experiment_of("- 1\n"), RUN_CODES),
    Case("run", "label names are a list", experiment_of("data: {label_names: [1, 2]}\n"), RUN_CODES),
    Case("run", "a shallow place", shallow, RUN_CODES),
    Case("run", "folders of odd names", odd_folders, RUN_CODES),
    Case("run", "not a run", not_a_run),
    *(Case("data", name, data(*file), (1, 2)) for name, file in DATA_FILES.items()),
    *(Case("model", name, model(files)) for name, files in MODELS.items()),
    *(
        Case("model", f"{name} is {kind}", model_file(name, make))
        for name in MODEL_FILES
        for kind, make in SPECIAL.items()
        if kind in ("a pipe", "a folder", "a link to a device", "a link to nothing")
    ),
    *(Case("template", text, template(text)) for text in TEMPLATES),
]
