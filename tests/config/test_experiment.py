"""Settings: what is accepted, what is refused, and whether the message lets its reader go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.config.building import experiment, refusal

from entailor.config.experiment import DEFAULT_METHODS, Experiment, methods_by_name, parse_settings
from entailor.config.overrides import SECTIONS, apply_overrides, dump_yaml, read_yaml, set_key
from entailor.config.parts import BudgetSettings, DataSettings, ModelSettings, Settings
from entailor.errors import ConfigError
from entailor.methods.registry import build_method, experiment_schema, registered_methods


def test_the_defaults_are_the_methods_that_ship():
    made = experiment()
    assert tuple(made.methods) == DEFAULT_METHODS
    assert set(DEFAULT_METHODS) <= registered_methods().keys()
    assert made == Experiment()


# --- key=value


def test_a_bare_key_goes_to_every_chosen_method_that_has_it():
    made = experiment("methods=majority,lora,full_finetuning", "learning_rate=1e-4")
    assert made.methods == {"majority": {}, "lora": {"learning_rate": 1e-4}, "full_finetuning": {"learning_rate": 1e-4}}


def test_methods_are_imported_only_for_keys_that_may_be_theirs():
    """Importing them loads torch: `validate` took twice as long with it."""
    asked: list[str] = []

    def keys_of(name: str, settings: object) -> set[str]:
        asked.append(name)
        return {"learning_rate"}

    words = ["data.train=a.csv", "max_length=64", "methods=lora,majority", "lora.r=2", "seeds=1", "out=x"]
    for word in ("data.train=a.csv", "methods=lora,majority", "lora.r=2", "seeds=1"):
        apply_overrides({"methods": "lora"}, [word], keys_of)
    assert asked == []
    made = apply_overrides({}, [*words, "learning_rate=1e-4"], keys_of)
    assert asked == ["lora", "majority"]
    assert made["methods"] == {"lora": {"r": 2, "learning_rate": 1e-4}, "majority": {"learning_rate": 1e-4}}


@pytest.mark.parametrize("key", ["lora.r", "methods.lora.r"])
def test_a_dotted_key_goes_to_its_method_alone(key):
    made = experiment("methods=lora,p_tuning", f"{key}=8")
    assert made.methods == {"lora": {"r": 8}, "p_tuning": {}}
    assert build_method("lora", made.methods["lora"]).r == 8


def test_a_row_name_may_hold_dots():
    values = {"methods": {"lora.small": {"method": "lora"}, "lora": {}}}
    assert experiment("lora.small.r=2", "lora.r=4", values=values).methods == {
        "lora.small": {"method": "lora", "r": 2},
        "lora": {"r": 4},
    }


def test_sections_are_reached_by_their_path():
    made = experiment(
        "data.validation_size=0.2",
        "data.columns.premise=first",
        "data.columns={hypothesis: second}",
        "data.columns.label=gold",
        "data.label_names.0=yes",
        "model.max_length=64",
    )
    assert made.data.validation_size == 0.2
    assert made.data.columns == {"hypothesis": "second", "label": "gold"}  # a later word goes over an earlier one
    assert made.data.label_names == {"0": "yes"}
    assert made.model.max_length == 64


def test_every_section_of_an_experiment_is_reached():
    nested = {
        name
        for name, field in Experiment.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
    }
    assert nested == SECTIONS.keys()
    made = experiment("tracking.tensorboard=true", "tracking.mlflow=sqlite:///kept.db")
    assert (made.tracking.tensorboard, made.tracking.mlflow) == (True, "sqlite:///kept.db")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train": "a.csv"}, "^train: unknown key. Did you mean data.train\\? "),
        ({"seed": 3}, "^seed: unknown key. Did you mean 'seeds'\\? "),
        (
            {"budget": {"trails": 3}, "data": {"train": 3}},
            "(?s)^data.train: .*, found 3\nbudget.trails: unknown key. Did",
        ),
        ({"data": DataSettings(train="a.csv"), "out": 3}, "^out: Input should be a valid string, found 3$"),
        ({"seeds": 0}, "^seeds: at least one seed is needed, found 0$"),
    ],
)
def test_settings_made_in_python_complain_as_those_of_a_file_do(values, said):
    for make in (lambda: Experiment(**values), lambda: parse_settings(Experiment, values)):
        with pytest.raises(ConfigError, match=said):
            make()
    with pytest.raises(ConfigError, match=r"unknown key\. Did you mean 'trials'"):
        BudgetSettings(trails=3)


@pytest.mark.parametrize(
    ("text", "number"), [("1e-4", 1e-4), ("1E-4", 1e-4), ("2.5e3", 2500), (".5e-3", 5e-4), ("0.01", 0.01), ("3", 3)]
)
def test_numbers_are_numbers_however_they_are_written(text, number):
    own = experiment("methods=lora", f"lora.learning_rate={text}").methods["lora"]
    assert isinstance(own["learning_rate"], (int, float))
    assert build_method("lora", own).learning_rate == number


def test_scientific_numbers_in_a_yaml_file_are_numbers(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("methods:\n  lora:\n    learning_rate: 1e-4\ndata:\n  validation_size: 5e-2\n")
    made = experiment(values=read_yaml(file))
    assert build_method("lora", made.methods["lora"]).learning_rate == 1e-4
    assert made.data.validation_size == 0.05


def test_lists():
    made = experiment("methods=lora,linear_probe", "lora.target_modules=[query, value]", "C=[1e-2, 1]", "seeds=[3, 5]")
    assert build_method("lora", made.methods["lora"]).target_modules == ("query", "value")
    assert build_method("linear_probe", made.methods["linear_probe"]).C == (0.01, 1.0)
    assert made.seeds == (3, 5)
    assert experiment("models=[a/b, c]").models == experiment("models=a/b, c").models == ("a/b", "c")


def test_null_unsets():
    made = experiment("data.max_train_examples=null", values={"data": {"max_train_examples": 5, "train": "a.csv"}})
    assert made.data == DataSettings(train="a.csv")
    assert experiment("data.train=", values={"data": {"train": "a.csv"}}).data.train is None


@pytest.mark.parametrize("text", ["runs/a", "007", "1e5", "no", "2024-01-01", "runs/x: y", "a=b", "[x]"])
def test_text_stays_text(text):
    assert experiment(f"out={text}").out == text
    assert experiment(f"model.revision={text}").model.revision == text
    assert experiment(f"data.columns.label={text}").data.columns == {"label": text}


def test_methods_can_be_chosen_by_a_word_and_keep_their_settings():
    values = {"methods": {"majority": None, "wide": {"method": "lora", "r": 64}, "lora": {"r": 8}}}
    made = experiment("methods=wide,bag_of_words", "learning_rate=1e-3", values=values)
    assert made.methods == {"wide": {"method": "lora", "r": 64, "learning_rate": 1e-3}, "bag_of_words": {}}


def test_values_given_by_the_caller_are_left_alone():
    values = {"methods": {"lora": {"r": 8}}, "data": {"columns": {}}}
    experiment("lora.r=4", "data.columns.label=x", "data.max_rows=200", values=values)
    assert values == {"methods": {"lora": {"r": 8}}, "data": {"columns": {}}}


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("learning_rate", ["'learning_rate'", "key=value"]),
        ("=3", ["key=value"]),
        ("learning_rat=3", ["learning_rat: no key", "Did you mean 'learning_rate'?"]),
        ("seed=3", ["Did you mean 'seeds'?"]),
        ("model=org/name", ["Did you mean 'models'?"]),
        ("validation_sise=0.2", ["validation_sise: no key", "Did you mean 'data.validation_size'?"]),
        (
            "data.validation_sise=0.2",
            ["data.validation_sise: unknown key", "Did you mean 'validation_size'?", "max_bytes"],
        ),
        ("model.max_len=9", ["model.max_len: unknown key", "Did you mean 'max_length'?"]),
        ("lora.lora_alhpa=9", ["methods.lora.lora_alhpa: unknown key", "Did you mean 'lora_alpha'?"]),
        ("p_tuning.num_virtual_tokens=9", ["p_tuning.num_virtual_tokens: no key", "(lora, majority)"]),
        ("data=3", ["data: no key"]),
        ("methods=lroa", ["methods.lroa: no method 'lroa'", "Did you mean 'lora'?", "full_finetuning"]),
        ("methods=3", ["methods: ", "found 3"]),
        ("methods=", ["methods: ", "found None"]),
        ("methods=[]", ["methods: at least one method"]),
        ("methods=lora,lora", ["methods: method 'lora' stands twice", "`method:`"]),
        ("data.columns.text.x=3", ["data.columns.text", "string"]),
        ("out.x=3", ["out.x: no key"]),
    ],
)
def test_a_key_nothing_takes_is_never_passed_over(word, parts):
    words = [word] if word.startswith("methods") else ["methods=lora,majority", word]
    message = refusal(*words)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("lora.r=0", ["methods.lora.r: ", "greater than or equal to 1", "found 0"]),
        ("lora.r=2.5", ["methods.lora.r: ", "integer", "found 2.5"]),
        ("lora.lora_dropout=1", ["less than 1"]),
        ("lora.learning_rate=fast", ["methods.lora.learning_rate: ", "number", "found 'fast'"]),
        ("lora.learning_rate=.inf", ["finite"]),
        ("lora.learning_rate=.nan", ["finite"]),
        ("lora.bias=some", ["'none', 'all' or 'lora_only'"]),
        ("data.validation_size=0", ["data.validation_size: ", "greater than 0"]),
        ("data.validation_size=abc", ["data.validation_size: ", "found 'abc'"]),
        ("data.max_train_examples=0", ["data.max_train_examples: ", "1"]),
        ("data.labels=entailment", ["data.labels: ", "list"]),
        ("model.precision=fp16", ["model.precision: ", "'auto', 'fp32' or 'bf16'"]),
        ("seeds=0", ["seeds: at least one seed"]),
        ("seeds=[]", ["seeds: at least one seed"]),
        ("seeds=[1, 1]", ["seeds: 1 stands twice"]),
        ("seeds=[-1]", ["seeds.0: ", "greater than or equal to 0", "found -1"]),
        ("seeds=[a]", ["seeds", "integer", "found 'a'"]),
        ("models=[]", ["models: at least one model"]),
        ("models=a,b,a", ["models: 'a' stands twice"]),
        ("restarts=-1", ["restarts: "]),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_was_found(word, parts):
    message = refusal("methods=lora", word)
    for part in parts:
        assert part in message


def test_a_field_of_several_types_complains_once():
    message = refusal("methods=lora", "lora.target_modules=3")
    assert message.count("methods.lora.target_modules:") == 1
    assert "string" in message
    assert "list" in message
    assert message.endswith("found 3")


def test_all_complaints_come_at_once():
    message = refusal("data.validation_size=abc", "seeds=0", "model.head=old")
    assert [line.split(":")[0] for line in message.splitlines()] == ["data.validation_size", "model.head", "seeds"]


def test_long_values_are_cut_in_messages():
    assert len(refusal(f"seeds={'x' * 5000}")) < 300


# --- files


def test_a_yaml_file_goes_under_the_words(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "out: runs/file\nseeds: 3\ndata: {validation_size: 0.3, test_size: 0.25}\nmethods:\n  lora: "
        "{r: 4, lora_alpha: 8}\n"
    )
    values = read_yaml(file)
    set_key(values, ["out"], "runs/flag")
    set_key(values, ["data", "test_size"], 0.15)
    made = experiment("data.validation_size=0.4", "lora.r=2", values=values)
    assert (made.out, made.seeds) == ("runs/flag", (0, 1, 2))
    assert (made.data.validation_size, made.data.test_size) == (0.4, 0.15)
    assert made.methods == {"lora": {"r": 2, "lora_alpha": 8}}


def test_an_empty_section_is_no_section(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data:\nout: runs/x\n")
    values = read_yaml(file)
    set_key(values, ["data", "train"], "a.csv")
    assert experiment(values=values).data.train == "a.csv"


yaml_text = st.text(max_size=8) | st.sampled_from(
    ["1e-4", "12345e7", "no", "007", "~", "1:30", "2024-01-01", "=", "'", "\x85", "日本 \u2028"]
)
yaml_value = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | yaml_text


@settings(max_examples=60)
@given(st.dictionaries(yaml_text, yaml_value | st.lists(yaml_value, max_size=3), max_size=4))
def test_what_is_dumped_is_read_back(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("yaml") / "run.yaml"
    file.write_text(dump_yaml(values), encoding="utf-8")
    assert read_yaml(file) == values


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    (tmp_path / "run.yaml").write_text("# nothing yet\n")
    assert read_yaml(tmp_path / "run.yaml") == {}


@pytest.mark.parametrize(
    ("write", "parts"),
    [
        (lambda path: None, ["No such file"]),
        (lambda path: path.mkdir(), ["directory"]),
        (lambda path: path.write_bytes(b"out: \xff\n"), ["not UTF-8 at byte 5"]),
        (lambda path: path.write_text("a: [1\nb: 2\n"), ["cannot be read as YAML", "line 2"]),
        (lambda path: path.write_text("- lora\n- majority\n"), ["a mapping", "found a list"]),
        (
            lambda path: path.write_text("!!python/object/apply:os.getcwd []\n"),
            ["cannot be read as YAML", "is not taken. Write a plain value"],
        ),
    ],
)
def test_a_yaml_file_that_cannot_be_used(tmp_path: Path, write: Callable[[Path], object], parts: list[str]):
    file = tmp_path / "run.yaml"
    write(file)
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    for part in [str(file), *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"dat": {}}, ["dat: unknown key", "Did you mean 'data'?"]),
        ({"data": 3}, ["data: ", "found 3"]),
        ({"methods": {"lora": 3}}, ["methods: lora: keys with values were expected, found 3"]),
        ({"methods": {"lora": False}}, ["methods: lora: ", "found False"]),
        ({"methods": [{"lora": {}, "majority": {}}]}, ["one `name: settings` entry"]),
        ({"methods": [3]}, ["found 3"]),
        ({"methods": None}, ["found None"]),
        ({"methods": {"../x": {"method": "lora"}}}, ["'../x' cannot be a candidate name"]),
        ({"methods": {"a/b": {"method": "lora"}}}, ["'a/b' cannot be a candidate name"]),
        (
            {"methods": {"Small": {"method": "lora"}, "lora": {}, "small": {"method": "lora"}}},
            ["'Small' and 'small' differ in case alone", "Rename one"],
        ),
        ({"methods": {"mine": {"method": "lroa"}}}, ["methods.mine: no method 'lroa'"]),
        ({"methods": {"mine": {"r": 8}}}, ["methods.mine: no method 'mine'"]),
        ({"models": [3]}, ["models", "string", "found 3"]),
    ],
)
def test_values_of_a_file_that_cannot_be_used(values, parts):
    message = refusal(values=values)
    for part in parts:
        assert part in message


def test_a_value_in_the_way_of_a_path_is_named():
    with pytest.raises(ConfigError, match=r"^data: keys with values were expected, found 3$"):
        set_key({"data": 3}, ["data", "train"], "a.csv")
    assert "data.columns: keys with values" in refusal("data.columns.text=a", values={"data": {"columns": "b"}})


# --- the methods of an experiment


@pytest.mark.parametrize(
    "given",
    [
        "majority, lora",
        ["majority", "lora"],
        ("majority", {"lora": None}),
        [{"majority": {}}, {"lora": {}}],
        {"majority": {}, "lora": None},
    ],
)
def test_methods_can_be_given_in_several_ways(given):
    assert Experiment(methods=given).methods == methods_by_name(given) == {"majority": {}, "lora": {}}


def test_two_rows_of_one_method():
    made = experiment("wide.r=64", values={"methods": ["lora", {"wide": {"method": "lora"}}]})
    assert made.methods == {"lora": {}, "wide": {"method": "lora", "r": 64}}
    wide, plain = (build_method(name, made.methods[name]) for name in ("wide", "lora"))
    assert (wide.name, wide.r, plain.r) == ("lora", 64, 16)


def test_a_bare_key_reaches_rows_of_other_names():
    values = {"methods": {"wide": {"method": "lora"}, "majority": {}}}
    assert experiment("r=3", values=values).methods["wide"]["r"] == 3


def test_a_count_of_seeds_and_a_list_of_seeds():
    assert Experiment().seeds == (0, 1, 2)
    assert Experiment(seeds=3).seeds == Experiment(seeds=[0, 1, 2]).seeds == (0, 1, 2)


def test_label_names_may_be_written_as_integers():
    assert experiment("data.label_names={0: right, 1: wrong}").data.label_names == {"0": "right", "1": "wrong"}


def test_labels_that_yaml_takes_for_booleans():
    message = refusal(values={"data": {"label_names": {0: False, 1: "yes"}}})
    assert message.startswith("data.label_names.0: ")
    assert "found False (YAML takes yes, no" in message
    assert "in quotes" in message


@pytest.mark.parametrize("made", [Experiment(), DataSettings(), ModelSettings(), build_method("lora", {})])
def test_settings_are_frozen(made):
    name = next(iter(type(made).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, name, getattr(made, name))


@pytest.mark.parametrize("kind", [Experiment, DataSettings, ModelSettings])
def test_every_key_is_documented(kind):
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


# --- the schema


def test_the_schema_holds_every_key_of_every_method():
    schema = experiment_schema()
    assert set(schema["properties"]) == set(Experiment.model_fields)
    for name, kind in registered_methods().items():
        properties = schema["$defs"][name]["properties"]
        assert set(properties) == {*kind.model_fields, "method", "models", "model", "prompt"}
        assert all("description" in properties[key] for key in kind.model_fields), name
    assert schema["$defs"]["lora"]["properties"]["r"]["minimum"] == 1
    assert schema["additionalProperties"] is False


def test_a_bare_key_of_a_section_goes_there():
    made = experiment("methods=lora", "max_length=64", "validation_size=0.2", "chat=true")
    assert (made.model.max_length, made.data.validation_size, made.prompt.chat) == (64, 0.2, True)


def test_a_row_sets_model_and_prompt_for_itself():
    made = experiment("methods=lora,majority", "lora.model.max_length=64", "methods.lora.prompt.separator=;")
    assert made.methods["lora"] == {"model": {"max_length": 64}, "prompt": {"separator": ";"}}
    assert build_method("lora", made.methods["lora"]) == build_method("lora", {})


def test_the_schema_knows_the_short_ways_of_writing():
    properties = experiment_schema()["properties"]
    assert {one["type"] for one in properties["seeds"]["anyOf"]} == {"integer", "array"}
    assert {one["type"] for one in properties["models"]["anyOf"]} == {"string", "array"}
    assert {one["type"] for one in properties["methods"]["anyOf"]} == {"string", "array", "object"}
    assert all(properties[key]["description"] for key in ("seeds", "models", "methods"))


def test_priorities_are_reached_by_their_path():
    made = experiment(
        "recommend.max_latency_ms=20", "recommend.max_stored_bytes=2e9", "recommend.cheapest=memory,latency"
    )
    assert made.recommend.max_latency_ms == 20
    assert made.recommend.max_stored_bytes == 2_000_000_000
    assert made.recommend.cheapest == ("memory", "latency", "stored", "train_time")  # the rest comes last


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("recommend.max_latency_ms=0", "recommend.max_latency_ms"),
        ("recommend.cheapest=price", "recommend.cheapest"),
        ("recommend.cheapest=memory,memory", "stands twice"),
        ("recommend.max_latncy_ms=3", "max_latency_ms"),
        ("data.external=a.csv,a.csv", "stands twice"),
    ],
)
def test_priorities_and_challenges_that_cannot_be_used(word, said):
    assert said in refusal(word)


def test_challenges_are_a_list_of_files():
    assert experiment("data.external=a.csv,b.csv").data.external == ("a.csv", "b.csv")
