import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
from tests.conftest import make_examples
from tests.methods import api_server as api
from tests.methods.conftest import logprobs

from entailor import Predictor, compare, export
from entailor.classifiers.api_answers import read_chat
from entailor.classifiers.api_client import ApiClient, Budget, Price, Question, Rules, Server
from entailor.errors import ApiError, MethodError
from entailor.methods import build_method
from entailor.tasks import Task

TRAIN, TUNE, TEST = (make_examples(count, seed=seed) for count, seed in ((30, 1), (12, 2), (13, 3)))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "api"


@pytest.fixture
def server():
    with api.running(api.made_up) as running:
        yield running


@pytest.fixture
def waits(monkeypatch):
    """What is waited between attempts; no time passes."""
    found = []
    monkeypatch.setattr("entailor.classifiers.api_client.sleep", found.append)
    return found


def adapted(server, task, shots=TRAIN, **settings):
    method = build_method("llm_api", {"api_model": "made-up", "base_url": server.base_url, **settings})
    classifier = method.adapt(None, task, 0)
    classifier.demonstrate(shots)
    return classifier


# --- the same answers as in_context


@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_server_with_the_same_weights_gives_the_probabilities_of_in_context(kind, shots, cache, load_tiny, nli_task):
    verbalizer = {"entailment": "w1 w2 w3", "neutral": "w1 w4", "contradiction": "w5"}
    task = Task(nli_task.labels, is_pair=True, prompt=nli_task.prompt.model_copy(update={"verbalizer": verbalizer}))
    local = build_method("in_context", {"num_fewshot": shots}).adapt(
        load_tiny(kind, task, objective="language_model"), task, 0
    )
    local.demonstrate(TRAIN)
    with api.running(api.ModelAnswers(load_tiny(kind, task, objective="language_model"))) as server:
        remote = adapted(server, task, endpoint="completions", num_fewshot=shots)
        assert remote.way == "words"
        found = logprobs(remote, TEST)
    np.testing.assert_allclose(np.exp(found), np.exp(logprobs(local, TEST)), atol=1e-3)
    assert np.ptp(found, axis=0).max() > 1e-3


def test_words_of_one_token_are_scored_by_one_request_where_a_prompt_is_not_echoed(cache, load_tiny, nli_task):
    verbalizer = {"entailment": "w1", "neutral": "w2", "contradiction": "w5"}
    task = Task(nli_task.labels, is_pair=True, prompt=nli_task.prompt.model_copy(update={"verbalizer": verbalizer}))
    local = build_method("in_context", {}).adapt(load_tiny("llama", task, objective="language_model"), task, 0)
    local.demonstrate(TRAIN)
    answers = api.ModelAnswers(load_tiny("llama", task, objective="language_model"))
    with api.running(lambda path, body: answers(path, {**body, "echo": False})) as server:
        remote = adapted(server, task, endpoint="completions", top_logprobs=1000)
        assert remote.way == "logprobs"
        before = len(server.asked)
        found = logprobs(remote, TEST)
        assert len(server.asked) - before == len(TEST)
    np.testing.assert_allclose(np.exp(found), np.exp(logprobs(local, TEST)), atol=1e-3)


def test_an_echo_with_the_figures_of_another_token_is_not_used(cache, load_tiny, nli_task):
    answers = api.ModelAnswers(load_tiny("llama", nli_task, objective="language_model"))

    def shifted(path, body):
        document = answers(path, body)
        if body.get("echo"):  # as llama-cpp-python answers for models without a start-of-text token
            told = document["choices"][0]["logprobs"]
            told["token_logprobs"] = [*told["token_logprobs"][1:], -1.0]
        return document

    with api.running(shifted) as server:
        assert adapted(server, nli_task, endpoint="completions").way == "logprobs"


def test_prompts_are_those_of_in_context(server, cache, load_tiny, nli_task):
    local = build_method("in_context", {"num_fewshot": 2}).adapt(
        load_tiny("llama", nli_task, objective="language_model"), nli_task, 0
    )
    local.demonstrate(TRAIN)
    told = local.text_encoder.tokenizer.decode(local.encode(TEST[:1])[0].input_ids, skip_special_tokens=True)
    plain = adapted(server, nli_task, num_fewshot=2, endpoint="completions", scoring="text")
    assert plain.encode(TEST[:1])[0].turns == (told,)
    chat = adapted(server, nli_task, num_fewshot=2)
    roles = [turn["role"] for turn in server.asked[-1]["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert chat.encode(TEST[:1])[0].turns[1] == chat.task.template.word(chat.demonstrations.shots[0].label)


# --- faults


def ask_one(server, rules=Rules(), budget=None, cache_folder=None, text="hello"):  # noqa: B008
    client = ApiClient(Server(server.base_url), rules, budget or Budget(None, None), cache_folder)
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4}
    return client, client.ask([Question("/chat/completions", body, read_chat, 100, 4)])[0]


FAULTS = {
    "429": api.status(429),
    "500": api.status(500),
    "529": api.status(529),
    "wrong json": api.wrong_json,
    "other json": api.other_json,
    "cut connection": api.cut_connection,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_tried_again_with_longer_waits(fault, server, cache, waits):
    server.faults = [FAULTS[fault]] * 3
    client, reply = ask_one(server, cache_folder=cache)
    assert reply.value["text"] in api.WORDS
    assert client.budget.requests == 4
    assert len(waits) == 3
    assert waits[0] < waits[1] < waits[2]
    assert "4 requests sent (3 of them repetitions)" in client.summary()


def test_retry_after_is_honoured_in_seconds_and_as_a_date(server, cache, waits):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    server.faults = [api.status(429, {"Retry-After": "17"}), api.status(503, {"Retry-After": later})]
    ask_one(server, cache_folder=cache)
    assert waits[0] == 17
    assert 30 < waits[1] <= 50


def test_a_wait_of_an_hour_is_an_error_that_says_so(server, cache, waits):
    server.faults = [api.status(429, {"Retry-After": "3600"})]
    with pytest.raises(ApiError, match=r"asks to wait 3,600 seconds .*Run the same command again then"):
        ask_one(server, cache_folder=cache)
    assert waits == []


def test_a_server_that_stays_broken_is_an_error(server, cache, waits):
    server.faults = [api.status(500)] * 3
    with pytest.raises(ApiError, match=r"no answer after 3 attempts \(HTTP 500: made up: 500\)"):
        ask_one(server, Rules(max_retries=2), cache_folder=cache)


def test_a_slow_answer_is_given_up_however_steadily_it_drips(server, cache, waits):
    server.faults = [api.dripping]
    client, _ = ask_one(server, Rules(timeout=0.2), cache_folder=cache)
    assert client.budget.requests == 2


def test_no_server_at_all_is_an_error_that_names_it(cache, waits):
    with api.running(api.made_up) as gone:
        pass
    with pytest.raises(ApiError, match=rf"{gone.base_url}: no answer after 7 attempts .*Check that the server runs"):
        ask_one(gone, cache_folder=cache)


def test_a_refused_key_is_not_tried_again(server, cache, waits, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-mine")
    server.faults = [api.status(401, message="wrong key a-secret-of-mine")]
    with pytest.raises(ApiError, match=r"HTTP 401: wrong key \[hidden\]\. Check OPENAI_API_KEY"):
        ask_one(server, cache_folder=cache)
    assert len(server.asked) == 1


def test_an_account_without_money_is_not_tried_again(server, cache, waits):
    server.faults = [api.status(429, code="insufficient_quota")]
    with pytest.raises(ApiError, match="HTTP 429"):
        ask_one(server, cache_folder=cache)
    assert waits == []


def test_a_redirect_is_not_followed(server, cache):
    server.faults = [api.status(307, {"Location": "http://127.0.0.1:9/v1"})]
    with pytest.raises(ApiError, match="HTTP 307"):
        ask_one(server, cache_folder=cache)


# --- budget and cache


def test_nothing_is_asked_twice(server, cache, nli_task):
    first = adapted(server, nli_task)
    scores = logprobs(first, [*TEST, *TEST])
    assert len(server.asked) == 1 + len(TEST)  # one to see what the server can do
    again = adapted(server, nli_task)
    np.testing.assert_array_equal(logprobs(again, TEST), scores[: len(TEST)])
    assert len(server.asked) == 1 + len(TEST)
    assert again.notes()[0].startswith("0 requests sent")
    for file in cache.rglob("*.json"):  # what was asked stands in the cache as a hash alone
        assert not any(row.text in file.read_text() for row in TEST)


def test_a_damaged_answer_is_asked_again(server, cache):
    ask_one(server, cache_folder=cache)
    (file,) = cache.rglob("*.json")
    file.write_text("{")
    ask_one(server, cache_folder=cache)
    assert len(server.asked) == 2


def test_requests_are_on_their_way_together_but_never_more_than_allowed(server, cache, nli_task):
    classifier = adapted(server, nli_task, concurrency=3)
    logprobs(classifier, make_examples(40, seed=8))
    assert server.most_at_once <= 3


@pytest.mark.parametrize("faults", [0, 4])
def test_the_budget_of_requests_is_never_exceeded(faults, server, cache, waits, nli_task):
    server.faults = [api.status(500)] * faults
    classifier = adapted(server, nli_task, max_requests=9)
    with pytest.raises(ApiError, match=r"the budget of 9 requests is spent\. Raise max_requests"):
        logprobs(classifier, TEST)
    assert len(server.asked) == 9
    more = adapted(server, nli_task, max_requests=9)
    logprobs(more, TEST)
    assert len(server.asked) == 9 + 1 + len(TEST) - (9 - faults)


def test_the_budget_of_money_is_never_exceeded(server, cache, nli_task):
    # an answer costs 100 * 2 + 2 * 10 = 220 millionths; before it came it might have cost several times that
    prices = {"input_price": 2.0, "output_price": 10.0}
    classifier = adapted(server, nli_task, max_cost=0.003, **prices)
    with pytest.raises(ApiError, match=r"the budget of 0\.003 does not suffice: 0\.00\d+ is spent.*Raise max_cost"):
        logprobs(classifier, make_examples(200, seed=9))
    assert 0.001 < 220e-6 * len(server.asked) <= 0.003
    assert classifier.client.budget.spent == pytest.approx(220e-6 * len(server.asked))


def test_what_may_have_been_charged_counts_as_spent(server, cache, waits):
    server.faults = [api.cut_connection, api.status(500)]
    rules, budget = Rules(price=Price(1.0, 1.0)), Budget(None, None)
    ask_one(server, rules, budget, cache)
    assert budget.spent == pytest.approx((104 + 0 + 102) / 1e6)  # a cut answer its bound, an error nothing


def test_a_server_that_counts_no_tokens_is_charged_the_bound(cache):
    with api.running(lambda path, body: {**api.made_up(path, body), "usage": None}) as server:
        budget = Budget(None, None)
        ask_one(server, Rules(price=Price(1.0, 1.0)), budget, cache)
    assert budget.spent == pytest.approx(104e-6)


# --- what a server can do


def test_a_server_without_logprobs_gives_constrained_answers_and_else_plain_ones(cache, nli_task):
    def constrained(path, body):
        words = body.get("response_format", {}).get("json_schema", {}).get("schema")
        return api.chat_answer('{"label": "Neither"}' if words else "Well, Neither I think")

    with api.running(constrained) as server:
        classifier = adapted(server, nli_task)
        assert classifier.way == "constrained"
        assert np.exp(logprobs(classifier, TEST[:2])[:, 1]) == pytest.approx(0.95)
        enum = server.asked[-1]["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"]
        assert enum == ["True", "Neither", "False"]
        assert "logprobs" not in server.asked[-1]

    with api.running(lambda path, body: api.chat_answer("neither.")) as server:
        server.faults = [api.status(400, message="unknown key logprobs"), api.status(422)]
        assert adapted(server, nli_task).way == "text"


def test_a_server_that_fails_for_another_reason_is_not_taken_for_one_that_cannot(server, cache, nli_task):
    server.faults = [api.status(401)]
    with pytest.raises(ApiError, match="HTTP 401"):
        adapted(server, nli_task)


def test_extra_keys_go_into_requests_and_null_takes_one_out(server, cache, nli_task):
    adapted(server, nli_task, extra={"max_completion_tokens": 500, "max_tokens": None, "temperature": None})
    asked = server.asked[-1]
    assert asked["max_completion_tokens"] == 500
    assert not {"max_tokens", "temperature"} & set(asked)


# --- whose server, whose key


def test_the_key_goes_to_the_server_of_the_environment_alone(server, api_server, cache, nli_task, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-mine")
    adapted(server, nli_task)  # on this machine, but not the one the environment names
    assert server.keys == [None]
    adapted(api_server, nli_task, api_model="another")
    assert api_server.keys[-1] == "Bearer a-secret-of-mine"


@pytest.mark.parametrize(
    ("base_url", "said"),
    [
        ("http://gpu.example.org/v1", "texts would be sent to http://gpu.example.org/v1, and OPENAI_BASE_URL does not"),
        ("http://me:secret@127.0.0.1/v1", "an address without password and query is expected"),
        ("127.0.0.1:8000", "is no address. Write it like http://127.0.0.1:8000/v1"),
        ("file:///etc/passwd", "is no address"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(base_url, said, nli_task):
    with pytest.raises(ApiError, match=said) as caught:
        build_method("llm_api", {"api_model": "x", "base_url": base_url}).adapt(None, nli_task, 0)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"api_model": ""}, "no model is named. Give llm_api.api_model=NAME"),
        ({"max_cost": 1.0}, "max_cost needs prices. Give input_price and output_price"),
        ({"scoring": "words"}, "endpoint=chat has no scoring=words. Give auto, logprobs, constrained, text"),
        ({"demonstrations": "fixed"}, "demonstrations=fixed goes with demonstration_ids"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said, nli_task):
    with pytest.raises(MethodError, match=said):
        build_method("llm_api", {"api_model": "x", **settings}).adapt(None, nli_task, 0)


# --- a whole run


def test_a_run_counts_silence_as_wrong_shows_costs_and_holds_no_key(cache, tmp_path, monkeypatch, nli_task):
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-mine")
    texts = [f"{word} film {number}" for number in range(40) for word in ("good", "bad")]
    rows = [(text, text.split()[0]) for text in texts]
    test = [(f"{text} again", label) for text, label in rows[:20]]

    def critic(path, body):
        text = body["messages"][-1]["content"]
        if "film 3 again" in text:
            return api.chat_answer("I will not say")
        if "film 4 again" in text:
            return api.chat_answer("", refusal="I will not say")
        found = text.rpartition("Text: ")[2].split()[0]
        return api.chat_answer(found, {found: -0.1, "bad" if found == "good" else "good": -2.4})

    def declined(handler):
        api.send(handler, 400, {"error": {"message": "filtered", "code": "content_filter"}})
        return True

    out = tmp_path / "run"
    with api.running(critic) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        settings = {"llm_api": {"api_model": "critic", "input_price": 1.0, "output_price": 4.0}, "majority": {}}
        run = compare(train=rows, test=test, methods=settings, out=str(out), doctor=False)
        (one,) = [row for row in run.candidates if row.method == "llm_api"]
        assert one.accuracy.mean == pytest.approx(16 / 20)  # two texts of each kind have no answer
        record = json.loads((out / "trials/none/llm_api/seed-0/record.json").read_text())
        events = [event["text"] for event in record["events"]]
        assert "4 of 20 test examples have no answer, and count as wrong" in events
        assert any("no answer for 4 of" in text and "not understood: 2, refused: 2" in text for text in events)
        assert any("requests sent" in text for text in events)
        assert record["costs"]["cost_per_thousand"] == pytest.approx(1000 * (100 * 1 + 2 * 4) / 1e6)
        assert 0 < record["costs"]["latency_p50_ms"] <= record["costs"]["latency_p95_ms"]
        assert "0.108 for 1,000" in (out / "report.html").read_text()
        assert server.keys[-1] == "Bearer a-secret-of-mine"

        asked = len(server.asked)
        predictor = Predictor.load(out / "trials/none/llm_api/seed-0")
        answers = predictor.predict(["good film 1 again", "good film 3 again", "good film 999"])
        assert [answer.label for answer in answers] == ["good", None, "good"]
        assert predictor.predict(["good film 3 again"], calibrated=True)[0].label is None
        assert len(server.asked) == asked + 1  # the others were asked before
        server.faults = [declined]
        assert predictor.predict(["bad film 1000"])[0].label is None
        assert predictor.predict(["bad film 1000"])[0].label is None  # which is kept as well
        assert len(server.asked) == asked + 2

        with pytest.raises(MethodError, match=r"the model is on a server.*entailor serve.*Fitting: none"):
            export(out / "trials/none/llm_api/seed-0", ["transformers"], tmp_path / "exported")
    for file in [*out.rglob("*"), *cache.rglob("*")]:
        assert file.is_dir() or b"a-secret-of-mine" not in file.read_bytes()


def test_a_strangers_classifier_sends_no_text_where_the_environment_does_not_say(server, cache, tmp_path, nli_task):
    classifier = adapted(server, nli_task)
    classifier.save(tmp_path)
    saved = json.loads((tmp_path / "llm_api.json").read_text())
    (tmp_path / "llm_api.json").write_text(json.dumps({**saved, "server": "http://elsewhere.example.org/v1"}))
    with pytest.raises(ApiError, match="texts would be sent to http://elsewhere"):
        adapted(server, nli_task).load(tmp_path)


def test_batch_calibration_leaves_out_what_has_no_answer(server, cache, nli_task):
    classifier = adapted(server, nli_task, calibration="batch")
    scores = logprobs(classifier, TUNE)
    mean = np.log(np.exp(scores[1:]).mean(0))
    scores[0] = -np.inf
    classifier.calibrate(scores, np.array(nli_task.targets(TUNE)))
    np.testing.assert_allclose(classifier.bias_L, mean)
