"""The long part, for `make test-gpu`: every training broken off, planted mistakes, the examples of the origin."""

from tests.gpu.mistakes import MISTAKES
from tests.gpu.process import ask


def test_every_training_on_an_accelerator_goes_on_to_the_bit(tmp_path):
    found = ask("whole", tmp_path)["rounds"]
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_every_planted_mistake_is_caught(tmp_path):
    caught = ask("mistakes", tmp_path)
    assert len(MISTAKES) == len({mistake.name for mistake in MISTAKES}) >= 20
    assert [name for name, problems in caught.items() if not problems] == []


def test_the_examples_of_the_origin_run_on_an_accelerator(tmp_path):
    found = ask("examples", tmp_path)
    assert found.keys() == {"mnli_roberta_large_origin", "llama3_8b_origin"}
    for example, candidates in found.items():
        for candidate, seen in candidates.items():
            assert seen["error"] is None, f"{example}: {candidate}"
            assert seen["peak"] or candidate == "majority", f"{example}: {candidate} was not on the device"
