"""What a message about a model on a server proposes is done on the command line, and the candidate is compared."""

from __future__ import annotations

import shlex

import pytest
from tests.conftest import make_examples, write_csv
from tests.hostile import running
from tests.methods import api_server as api

COUNT = 12
HERE = "llm_api.base_url={url}"
WITH_KEY, PRICED, ELSEWHERE = f"{HERE} OPENAI_API_KEY=k", f"{HERE} input_price=0.01", "llm_api.base_url={elsewhere}"
SEEDS = f"{HERE} num_fewshot=2 seeds=2"


def passed(handler: object) -> bool:
    return False


LATE = [*[passed] * 18, *[api.status(500)] * 3]  # the first seed ends, the second needs more than it may


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("texts")
    train, test = (make_examples(number, seed=number, pair=False, labels=("yes", "no")) for number in (8, COUNT))
    return f"data.train={write_csv(folder / 'train.csv', train)} data.test={write_csv(folder / 'test.csv', test)}"


@pytest.mark.parametrize(
    ("wrong", "faults", "remedy", "told"),
    [
        ("llm_api.base_url=127.0.0.1:8000", [], "Write it like http://127.0.0.1:8000/v1", HERE),
        ("llm_api.base_url=http://me:secret-word@127.0.0.1/v1", [], "Put the key in OPENAI_API_KEY", WITH_KEY),
        (ELSEWHERE, [], "set OPENAI_BASE_URL={elsewhere}", f"{ELSEWHERE} OPENAI_BASE_URL={{elsewhere}}"),
        (f"{HERE} max_requests=3", [], "Raise max_requests (predict", f"{HERE} max_requests=30"),
        (f"{SEEDS} max_requests=16", LATE, "Raise max_requests (predict", f"{SEEDS} max_requests=30"),
        (f"{PRICED} max_cost=5e-6", [], "Raise max_cost (predict", f"{PRICED} max_cost=9"),
        (f"{HERE} max_retries=0", [api.status(500)], "run the same command again", f"{HERE} max_retries=0"),
        (HERE, [api.status(429, {"Retry-After": "3600"})], "Run the same command again then", HERE),
        (HERE, [api.status(401)], "Check OPENAI_API_KEY", WITH_KEY),
        (HERE, [api.status(404)] * 9, "Check base_url, api_model and the other settings of llm_api", HERE),
        (f"{HERE} ENTAILOR_CACHE=/dev/null/x", [], "Set ENTAILOR_CACHE to a folder you may write to", HERE),
    ],
)  # fmt: skip
def test_what_a_message_proposes_is_compared(tmp_path, monkeypatch, files, wrong, faults, remedy, told):
    monkeypatch.setattr("entailor.classifiers.api_client.sleep", lambda seconds: None)
    monkeypatch.setattr("entailor.study.compare.write_report", lambda folder: None)
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path / "cache"))
    with api.running(api.made_up) as server:
        places = {"url": server.base_url, "elsewhere": server.base_url.replace("127.0.0.1", "0.0.0.0")}
        server.faults = list(faults)
        out = ["--out", str(tmp_path / "run"), "estimate=false", "doctor=false", *files.split()]

        def compared(words: str) -> tuple[int, str]:
            given = shlex.split(words.format(**places))
            settings = [word for word in given if not word.partition("=")[0].isupper()]
            with monkeypatch.context() as patch:
                for name, _, value in (word.partition("=") for word in given if word not in settings):
                    patch.setenv(name, value)
                return running.command(
                    ["compare", "--methods", "majority,llm_api", "llm_api.api_model=x", *settings, *out]
                )

        code, text = compared(wrong)
        assert remedy.format(**places) in text.replace("\n", " "), text
        assert "secret-word" not in text
        server.faults.clear()
        code, text = compared(told)
        assert code == 0, text
        assert "failed" not in text, text
        questions = [str(body) for body in server.asked]
        again = len(questions) - len(set(questions))
        assert again <= len(faults) + ("CACHE" in wrong)  # what was answered and kept is not asked again


def test_predict_goes_on_where_its_budget_ended(tmp_path, monkeypatch, files):
    """The limit stands in the trial and cannot be raised there; each command has it, and keeps what was answered."""
    monkeypatch.setattr("entailor.study.compare.write_report", lambda folder: None)
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path / "cache"))
    texts, run = tmp_path / "new.csv", tmp_path / "run"
    texts.write_text("text\n" + "".join(f"new text {number}\n" for number in range(30)))
    words = ["compare", "--methods", "llm_api", "llm_api.api_model=x", "estimate=false", "doctor=false", *files.split()]
    predict = ["predict", "--run", str(run / "trials/none/llm_api/seed-0"), "--input", str(texts)]
    with api.running(api.made_up) as server:
        settings = [f"llm_api.base_url={server.base_url}", f"llm_api.max_requests={COUNT + 6}"]
        code, text = running.command([*words, *settings, "--out", str(run)])
        assert code == 0, text
        code, text = running.command([*predict, "--output", str(tmp_path / "a.csv")])
        assert code == 2
        assert "(predict starts with as many again) and run the same command again" in text
        assert running.command([*predict, "--output", str(tmp_path / "a.csv")])[0] == 0
