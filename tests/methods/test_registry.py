import gc
import sys

import pytest

from entailor.errors import ConfigError
from entailor.methods import Method, TrainedMethod, build_method, registered_methods, registry
from entailor.methods.majority import Majority
from entailor.methods.registry import experiment_schema, known_keys


@pytest.fixture
def _forget():
    """Let classes made in a test go, so that no other test finds them."""
    yield
    gc.collect()


def test_every_file_that_defines_a_method_is_found():
    assert set(registered_methods()) == {
        "bag_of_words",
        "bitfit",
        "distilled",
        "dora",
        "full_finetuning",
        "hypothesis_only",
        "ia3",
        "in_context",
        "knn",
        "linear_probe",
        "llm_api",
        "lora",
        "majority",
        "p_tuning",
        "peft",
        "prefix_tuning",
        "prompt_tuning",
        "setfit",
        "static_embedding",
        "zero_shot_embedding",
        "zero_shot_nli",
    }
    assert list(registered_methods()) == sorted(registered_methods())


FILE = '''
from entailor.methods.majority import Majority


class Coin(Majority, name="coin_from_a_file"):
    """Toss a coin."""

    sides: int = 2
    """Sides of the coin."""
'''


def test_adding_a_file_to_the_folder_is_all_it_takes(monkeypatch, tmp_path):
    registered_methods()  # looked up before: a later file is found all the same
    (tmp_path / "coin.py").write_text(FILE)
    import entailor.methods

    with monkeypatch.context() as patch:
        patch.setattr(entailor.methods, "__path__", [*entailor.methods.__path__, str(tmp_path)])
        patch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
        assert build_method("coin_from_a_file", {"sides": 3}).sides == 3
        assert known_keys("row", {"method": "coin_from_a_file"}) == {"sides"}
    del sys.modules["entailor.methods.coin"], entailor.methods.coin
    gc.collect()
    assert "coin_from_a_file" not in registered_methods()


@pytest.mark.usefixtures("_forget")
def test_a_named_subclass_is_found_and_an_unnamed_or_abstract_one_is_not():
    class Named(Majority, name="named_in_a_test"):
        """Named."""

    class Unnamed(Majority):
        """Shares fields with others; not a method of its own."""

    class Abstract(TrainedMethod, name="abstract_in_a_test"):
        """Has no adapt."""

    known = registered_methods()
    assert known["named_in_a_test"] is Named
    assert Unnamed not in known.values()
    assert Unnamed.name == ""
    assert "abstract_in_a_test" not in known


def test_a_row_may_have_a_name_of_its_own():
    method = build_method("small_lora", {"method": "lora", "r": 2})
    assert (method.name, method.r) == ("lora", 2)
    assert build_method("lora", {"method": "p_tuning"}).name == "p_tuning"


def test_unknown_names_and_keys_come_with_the_near_miss():
    with pytest.raises(
        ConfigError, match=r"methods\.lara: no method 'lara'\. Did you mean 'lora'\? Known methods:.*maj"
    ):
        build_method("lara", {})
    with pytest.raises(ConfigError, match=r"methods\.row: no method 'p_tunning'\. Did you mean 'p_tuning'\?"):
        build_method("row", {"method": "p_tunning"})
    with pytest.raises(ConfigError, match=r"methods\.lora\.lora_alfa: unknown key\. Did you mean 'lora_alpha'\?"):
        build_method("lora", {"lora_alfa": 3})
    assert known_keys("lara", {}) == set()


def test_settings_are_frozen():
    method = build_method("lora", {})
    with pytest.raises(ValueError, match="frozen"):
        method.r = 3


def test_the_schema_documents_every_hyperparameter():
    schema = experiment_schema()
    for name, kind in registered_methods().items():
        properties = schema["$defs"][name]["properties"]
        assert properties["method"] == {"const": name}
        for field in kind.model_fields:
            assert properties[field]["description"]
    rows = schema["properties"]["methods"]["anyOf"][0]
    assert set(rows["properties"]) == set(registered_methods())


def test_methods_without_gradients_have_no_parameter_groups():
    assert issubclass(Majority, Method)
    assert Majority().parameter_groups(None) == []
