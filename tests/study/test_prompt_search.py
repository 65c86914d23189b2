"""Prompts chosen on validation: what is tried, what is chosen, and that test and the budget are left alone."""

import json

import pytest
from tests.methods import api_server as api

import entailor.study.compare
from entailor import compare
from entailor.config.experiment import Experiment
from entailor.errors import ConfigError
from entailor.report.effort import settings_words
from entailor.runs.files import read_checked_json, write_text
from entailor.runs.layout import RunFolder
from entailor.study.search import search_document

ROWS = [(f"{word} film {number}", word) for number in range(30) for word in ("good", "bad")]
TEST = [(f"{word} play {number}", word) for number in range(20) for word in ("good", "bad")]
SEARCH = {
    "templates": ["Say it: {{ text }} {{ label }}", "Text: {{ text }}\nVerdict: {{ label }}"],
    "instructions": ["Be kind.", "Be just."],
    "verbalizers": [{"good": "great", "bad": "awful"}],
}


def reader(path, body):
    """A model that understands the right wording alone, and says "good" else."""
    prompt = body["messages"][-1]["content"]
    understood = "Be just." in prompt and "Verdict:" in prompt
    kind = "Be kind." in prompt
    words = ("great", "awful") if "great" in json.dumps(body) else ("good", "bad")
    right = words["bad film" in prompt or "bad play" in prompt]
    found = right if understood or (kind and "film 1" in prompt) else words[0]
    other = words[1 - words.index(found)]
    return api.chat_answer(found, {found: -0.2, other: -2.0})


@pytest.fixture(autouse=True)
def plain_page(monkeypatch):
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path / "cache"))
    with api.running(reader) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        yield running


def run_of(tmp_path, **more):
    settings = {
        "methods": {"llm_api": {"api_model": "reader"}, "majority": {}},
        "prompt": {"search": SEARCH},
        "budget": {"trials": 20},
        "doctor": False,
        "out": str(tmp_path / "run"),
    }
    return compare(train=ROWS, test=TEST, **{**settings, **more})


def test_the_best_prompt_on_validation_is_chosen_and_kept(server, tmp_path):
    run = run_of(tmp_path)
    (study,) = search_document(RunFolder(tmp_path / "run"))["studies"]
    # three templates with the usual one, three instructions, two verbalizers: each combination once, and no more
    assert len(study["trials"]) == 18
    assert len({json.dumps(one["settings"]) for one in study["trials"]}) == 18
    assert set(study["trials"][0]["settings"].values()) == {0.0}  # the candidate's own first
    space = study["search_space"]
    chosen = {name: space[name]["choices"][int(place)] for name, place in study["chosen"].items()}
    assert chosen["prompt.template"] == "Text: {{ text }}⏎Verdict: {{ label }}"
    assert chosen["prompt.instruction"] == "Be just."
    assert run.best.method == "llm_api"
    assert run.best.accuracy.mean == 1.0
    saved = json.loads((tmp_path / "run/trials/none/llm_api/seed-0/classifier.json").read_text())
    assert saved["prompt"]["instruction"] == "Be just."
    assert run.best.predictor().predict(["bad film again"])[0].label == "bad"
    assert "prompt.instruction Be just." in settings_words(study["chosen"], space)
    # no prompt but the chosen one was asked about test
    about_test = [body for body in server.asked if "play" in json.dumps(body)]
    assert len(about_test) == len(TEST)
    asked = len(server.asked)
    run_of(tmp_path)  # finished: nothing is asked again
    assert len(server.asked) == asked


def test_the_budget_holds_for_prompts_as_well(server, tmp_path):
    run_of(tmp_path, budget={"trials": 4})
    expected = read_checked_json(tmp_path / "run/estimate.json", "")["candidates"]
    assert {one["method"]: one["error"] for one in expected} == {
        "llm_api": "how long its server takes is not known",
        "majority": None,
    }
    (study,) = search_document(RunFolder(tmp_path / "run"))["studies"]
    assert len(study["trials"]) == 4
    validation = study["trials"][0]["examples_seen"]
    run_of(tmp_path, budget={"examples": 3 * validation}, out=str(tmp_path / "other"))
    (study,) = search_document(RunFolder(tmp_path / "other"))["studies"]
    assert len(study["trials"]) == 3


def test_a_local_model_and_an_adapter_choose_their_prompts_too(tmp_path, tiny_model, nli_files):
    methods = {"in_context": {}, "lora": {"head": "verbalizer", "num_train_epochs": 1, "r": 2}}
    run = compare(
        Experiment(
            data=nli_files,
            models=(str(tiny_model("llama")),),
            methods=methods,
            prompt={"search": {"templates": ("label",)}},
            budget={"trials": 2},
            estimate=True,
            doctor=False,
            out=str(tmp_path / "run"),
        )
    )
    assert {one.method for one in run.candidates} == set(methods)
    studies = {one["method"]: one for one in search_document(RunFolder(tmp_path / "run"))["studies"]}
    assert studies["in_context"]["search_space"].keys() == {"prompt.template"}
    assert studies["lora"]["search_space"].keys() == {"learning_rate", "prompt.template"}
    assert [len(one["trials"]) for one in studies.values()] == [2, 2]
    assert all(one["error"] is None for study in studies.values() for one in study["trials"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"budget": {}}, "prompt.search: prompts are tried under a budget. Give one, for example budget.trials=8"),
        ({"methods": ["majority"]}, "prompt.search: no candidate reads a prompt. Add in_context or llm_api"),
        ({"prompt": {"search": {"templates": ["gpt3"]}}}, "gpt3 is for pairs, and the data have single texts"),
        ({"prompt": {"search": {"templates": ["{{ text }}"]}}}, "{{ label }} stands 0 times"),
        ({"prompt": {"search": {"verbalizers": [{"fine": "x"}]}}}, "'fine' is no label of the data"),
        (
            {"prompt": {"search": {"template": ["label"]}}},
            "prompt.search.template: unknown key. Did you mean",
        ),
    ],
)
def test_prompts_that_cannot_be_tried_are_refused_before_anything_is_asked(more, said, server, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run_of(tmp_path, **more)
    assert said in str(caught.value)
    assert server.asked == []
