"""Rows, models and seeds become trials: what runs on what, and encoders and decoders in one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import NLI_LABELS
from tests.observers import listener

from entailor.config.experiment import Experiment
from entailor.config.parts import ModelSettings
from entailor.errors import ConfigError
from entailor.shipping.restoring import load_classifier
from entailor.study.compare import compare


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "runs" / "one")


def test_families_stand_in_one_table(tiny_model, nli_files, out):
    encoder, decoder = (str(tiny_model(kind)) for kind in ("bert", "llama"))
    experiment = Experiment(
        data=nli_files,
        models=(encoder, decoder),
        model=ModelSettings(precision="fp32"),
        prompt={"template": "instruction"},
        methods={
            "lora": {"r": 2, "num_train_epochs": 1},
            "words": {"method": "lora", "r": 2, "num_train_epochs": 1, "head": "verbalizer", "models": decoder},
            "zero_shot": {"method": "in_context"},
            "one_shot": {"method": "in_context", "num_fewshot": 1, "prompt": {"template": "gpt3"}},
        },
        seeds=2,
        restarts=0,
        estimate=False,
        doctor=False,
        out=out,
    )
    notes = []
    run = compare(experiment, listener(note=notes.append, warn=notes.append))
    assert [record.error for record in run.records] == [None] * 9
    rows = {(row["model"], row["method"]): row for row in run.summary["candidates"]}
    assert set(rows) == {
        (encoder, "lora"),
        (decoder, "lora"),
        (decoder, "words"),
        (decoder, "zero_shot"),
        (decoder, "one_shot"),
    }
    assert f"left out on {encoder}, an encoder: zero_shot, one_shot" in notes
    zero = rows[decoder, "zero_shot"]
    assert (zero["num_seeds"], zero["train_seconds"], zero["trainable_parameters"]) == (1, 0, 0)
    assert rows[decoder, "one_shot"]["num_seeds"] == 2
    saved = json.loads((run.folder.trial(decoder, "one_shot", 1) / "classifier.json").read_text())
    assert saved["prompt"]["template"] == "gpt3"
    again = load_classifier(run.folder.trial(decoder, "one_shot", 1))
    assert len(again.demonstrations.shots) == 1
    record = next(record for record in run.records if record.name == "one_shot")
    asked = record.provenance["prompts"]
    assert [prompt["label"] for prompt in asked] == list(record.labels)
    assert "".join(asked[1]["tokens"]).endswith("True, False or Neither?\nAnswer:")
    assert asked[1]["slot"] == [" Neither"]


def test_a_row_for_a_model_that_is_not_there(nli_experiment, out):
    with pytest.raises(ConfigError, match=r"methods.lora.models: 'other' is none of the experiment's models"):
        compare(nli_experiment.model_copy(update={"methods": {"lora": {"models": "other"}}, "out": out}))


def test_rows_that_fit_no_model_are_an_error(nli_experiment, out):
    with pytest.raises(ConfigError, match="none of the chosen methods fits the models"):
        compare(nli_experiment.model_copy(update={"methods": {"in_context": {}}, "out": out}))


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"majority": {"models": "MODEL"}}, r"methods\.majority\.models: majority loads no model\. Leave models out"),
        ({"majority": {"model": {"load_in_4bit": True}}}, r"methods\.majority\.model: majority loads no model"),
        (
            {"a": {"method": "zero_shot_embedding", "prompt": {"verbalizer": {"neutral": "maybe"}}}},
            r"methods\.a\.prompt: zero_shot_embedding puts no prompt around the text on .*, no decoder\. Leave prompt "
            r"out, and say what labels mean in methods\.a\.descriptions$",
        ),
        ({"bag_of_words": {"prompt": {"template": "label"}}}, r"bag_of_words puts no prompt around the text\. Leave"),
    ],
)
def test_what_a_candidate_sets_and_nothing_reads_is_refused(nli_experiment, out, own, said):
    text = json.dumps(own).replace("MODEL", nli_experiment.models[0])
    with pytest.raises(ConfigError, match=said):
        compare(nli_experiment, methods={"lora": {}, **json.loads(text)}, out=out)
    assert not (Path(out) / "trials").exists()


@pytest.mark.filterwarnings("ignore")
def test_methods_of_the_default_list_that_cannot_work_are_left_out_before_anything_trains(tmp_path, nli_files, out):
    from tests.methods.architectures import make_model

    from entailor.config.experiment import DEFAULT_METHODS
    from entailor.errors import EntailorError

    def plans(kind, methods=DEFAULT_METHODS):
        folder = tmp_path / kind
        model = (
            str(folder) if folder.exists() else make_model(kind, folder, "decoder" if kind == "bloom" else "encoder")
        )
        notes = []

        def stop(number, count, title):
            raise EntailorError(f"{count} trials")  # planned, and nothing trained

        settings = {"seeds": 1, "estimate": False, "doctor": False, "out": f"{out}-{kind}-{len(methods)}"}
        experiment = Experiment(data=nli_files, models=(model,), methods={name: {} for name in methods}, **settings)
        with pytest.raises(EntailorError) as found:
            compare(experiment, listener(warn=notes.append, trial=stop))
        return str(found.value), notes

    found, notes = plans("bart")
    assert found == "6 trials"
    assert [note.partition(" is left out")[0] for note in notes if "is an encoder-decoder" in note] == [
        "p_tuning",
        "prefix_tuning",
    ]
    assert plans("bloom")[0] == "7 trials"
    for name in ("p_tuning", "prefix_tuning"):
        found, _ = plans("bart", ("majority", name))
        assert f"methods: {name} cannot work on" in found
        assert f"Take {name} out of methods" in found
    assert plans("bart", ("majority", "lora"))[0] == "2 trials"


NLI_COSTS = {gold: {said: 1.0 for said in NLI_LABELS if said != gold} for gold in NLI_LABELS}


def test_training_and_comparison_go_by_the_same_costs(nli_experiment, out):
    lora = {"r": 2, "num_train_epochs": 1, "metric_for_best_model": "cost"}
    costs = {**NLI_COSTS, "neutral": {"entailment": 5, "contradiction": 1}}
    recommend = {"metric": "cost", "costs": costs}
    run = compare(
        nli_experiment, methods={"majority": {}, "lora": lora}, recommend=recommend, doctor=False, seeds=1, out=out
    )
    assert run.summary["metric"] == "cost"
    (record,) = (one for one in run.records if one.name == "lora")
    assert record.hyperparameters["costs"] == costs
    chosen = [point.validation_figure for point in record.curve if point.validation_figure is not None]
    paid = [costs[one.label].get(one.predicted, 0) for one in record.validation_predictions]
    assert chosen == [pytest.approx(-sum(paid) / len(paid))]


@pytest.mark.parametrize(
    ("recommend", "own", "said"),
    [
        ({"costs": {"spam": {"ham": 1}}}, {}, r"recommend\.costs: 'spam' is none of the labels"),
        ({}, {"metric_for_best_model": "cost"}, r"methods\.lora\.metric_for_best_model: cost needs costs\."),
        ({}, {"thresholds": "cost"}, r"methods\.lora\.thresholds: cost needs costs\."),
        (
            {"costs": {**NLI_COSTS, "neutral": {"entailment": 5, "contradiction": 1}}},
            {"thresholds": "cost"},
            r"methods\.lora\.costs: mistakes on 'neutral' cost 1 to 5 more than the right.*Give each label one",
        ),
        (
            {"costs": NLI_COSTS},
            {"metric_for_best_model": "cost", "costs": {"neutral": {}}},
            r"methods\.lora\.costs: 6 of 6 mistakes have no cost, e\.g\. 'entailment' answered as",
        ),
    ],
)
def test_costs_of_other_labels_are_refused_before_anything_trains(nli_experiment, out, recommend, own, said):
    with pytest.raises(ConfigError, match=said):
        compare(nli_experiment, methods={"majority": {}, "lora": own}, recommend=recommend, out=out)
    assert not (Path(out) / "trials").exists()
