"""The HTTP interface as a client sees it."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from entailor.errors import ConfigError
from entailor.serving.registry import name_and_path
from entailor.serving.schemas import ClassifyRequest
from entailor.serving.settings import ServerSettings, read_token

TOKEN = "a-token-of-the-test"


def ask(client, inputs, model="texts", **more):
    return client.post("/v1/classify", json={"model": model, "inputs": inputs, **more})


def problem(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"type", "message"}
    return error["message"]


def test_each_input_gets_its_label_and_all_probabilities_most_probable_first(start):
    found = ask(start(), ["one", "one two", ""]).json()
    assert [one["label"] for one in found["results"]] == ["odd", "even", "even"]
    assert found["results"][0]["scores"][0]["label"] == "odd"
    assert [round(score["probability"], 6) for score in found["results"][0]["scores"]] == [0.9, 0.05, 0.05]


def test_top_k_calibration_and_abstention(start):
    client = start()
    found = ask(client, ["a fine unsure text"], top_k=1, min_confidence=0.5).json()["results"][0]
    assert found == {"label": None, "abstained": True, "scores": [{"label": "even", "probability": 0.4}]}
    plain, calibrated = (ask(client, ["one"], calibrated=on).json()["results"][0]["scores"][0] for on in (False, True))
    assert calibrated["label"] == plain["label"]
    # at temperature 2 the probabilities are those of the square roots
    assert calibrated["probability"] == pytest.approx(0.9**0.5 / (0.9**0.5 + 2 * 0.05**0.5))
    assert "no temperature" in problem(ask(client, [["a", "b"]], "pairs", calibrated=True), 422)


def test_pairs_go_to_classifiers_of_pairs_only(start):
    client = start()
    assert ask(client, [["one", "two three"]], "pairs").json()["results"][0]["label"] == "odd"
    assert "takes a pair, a text was found" in problem(ask(client, [["a", "b"], "alone"], "pairs"), 422)
    assert "takes a text, a pair was found" in problem(ask(client, [["a", "b"]]), 422)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"[]", 422),
        (b'{"model": "texts", "inputs": []}', 422),
        (b'{"model": "texts", "inputs": "text"}', 422),
        (b'{"model": "texts", "inputs": [null]}', 422),
        (b'{"model": "texts", "inputs": [["a", "b", "c"]]}', 422),
        (b'{"model": "texts", "inputs": ["a"], "top_k": 0}', 422),
        (b'{"model": "texts", "inputs": ["a"], "min_confidence": NaN}', 422),
        (b'{"model": "texts", "inputs": ["a"], "min_confidence": 1.5}', 422),
        (b'{"model": "texts", "inputs": ["a"], "typo": 1}', 422),
        (b'{"model": "texts", "inputs": ["\\ud800"]}', 422),
        (b'{"model": "\\ud800", "inputs": ["a"]}', 422),
        (b'{"model": "\xff", "inputs": ["a"]}', 400),
        (b'{"model": "none", "inputs": ["a"]}', 404),
        (b"[" * 100_000, 400),
    ],
)
def test_what_does_not_fit_is_one_clear_error(start, body, status):
    problem(start().post("/v1/classify", content=body, headers={"Content-Type": "application/json"}), status)


@pytest.mark.parametrize(
    ("content", "first"),
    [
        ('"inputs": [1, 2, 3]', "inputs.0"),
        ('"inputs": ["a", [], []]', "inputs.1"),
        ('"inputs": ["a"], "' + "x" * 1000 + '": 1, "y": 2', f"'{'x' * 40}' is no key, expected some of model, inputs"),
        ('"inputs": ["a"], "topk": 1, "y": 2', "'topk' is no key, .*Did you mean 'top_k'"),
    ],
)
def test_of_many_mistakes_the_first_is_named_and_no_other_is_looked_for(content, first):
    """A body of 4 MB has room for a million, and a list of them takes gigabytes while nobody is answered."""
    with pytest.raises(ValidationError) as caught:
        ClassifyRequest.model_validate_json(f'{{"model": "texts", {content}}}')
    where = {".".join(map(str, one["loc"][:2])) for one in caught.value.errors()}
    assert len(where) == 1
    said = f"{where.pop()} {caught.value.errors()[0]['msg']}"
    assert re.search(first, said), said
    assert len(said) < 200


def test_a_whole_number_may_be_written_as_json_schema_allows(start):
    assert len(ask(start(), ["a"], top_k=2.0).json()["results"][0]["scores"]) == 2
    problem(ask(start(), ["a"], top_k=True), 422)


def test_a_method_that_a_path_does_not_take_is_answered_with_all_it_takes(start):
    answer = start().options("/v1/models")
    problem(answer, 405)
    assert answer.headers["Allow"] == "GET, POST"


def test_limits_on_inputs_characters_and_bytes(start):
    client = start(max_inputs=2, max_characters=10, max_body_bytes=400)
    assert "at most 2" in problem(ask(client, ["a"] * 3), 422)
    assert "at most 10" in problem(ask(client, ["a", "b" * 11]), 422)
    assert "at most 400" in problem(ask(client, ["b" * 500]), 413)
    streamed = (b" " * 100 for _ in range(10))
    answer = client.post("/v1/classify", content=streamed, headers={"Content-Type": "application/json"})
    assert "at most 400" in problem(answer, 413)
    assert ask(client, ["a", "b" * 10]).status_code == 200


def test_a_form_of_another_site_is_not_taken_and_neither_is_another_host(start):
    client = start()
    text = json.dumps({"model": "texts", "inputs": ["a"]})
    for kind in ("text/plain", "application/x-www-form-urlencoded"):  # the second is what curl -d says
        answer = client.post("/v1/classify", content=text, headers={"Content-Type": kind})
        assert "Content-Type: application/json" in problem(answer, 422)
    assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 400


def test_a_full_queue_is_429_with_retry_after_and_those_taken_are_answered(start, registry):
    client = start(max_queue=4, max_inputs=4)
    scorer = registry.get("texts").predictor.scorer
    scorer.gate.clear()
    queue = client.app.state.batcher.queue
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(ask, client, ["one"])
        assert scorer.entered.wait(60)
        waiting = pool.submit(ask, client, ["one", "one two", "one", "one two"])
        while len(queue) < 4 and not waiting.done():
            pass
        refused = ask(client, ["one"])
        assert problem(refused, 429)
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        scorer.gate.set()
        assert running.result(60).status_code == 200
        assert [one["label"] for one in waiting.result(60).json()["results"]] == ["odd", "even"] * 2


def test_a_classifier_that_fails_is_500_without_a_text_and_the_server_goes_on(start):
    client = start()
    answer = ask(client, ["explode"])
    assert "secret" not in problem(answer, 500)
    assert not any("secret" in line for line in client.lines)
    assert ask(client, ["one"]).status_code == 200


def test_the_token_is_asked_for_but_on_pages_and_probes(start):
    client = start(token=TOKEN)
    for path in ("/", "/docs", "/healthz", "/readyz", "/openapi.json"):
        assert client.get(path).status_code == 200
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        for path in ("/v1/models", "/metrics"):
            answer = client.get(path, headers=header)
            problem(answer, 401)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert client.get("/v1/models", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_list_of_models_tells_what_a_client_needs_and_no_path(start):
    first = start().get("/v1/models").json()["models"][0]
    assert first == {
        "name": "texts",
        "candidate": "words",
        "base_model": "b",
        "labels": ["even", "odd", "سؤال"],
        "is_pair": False,
        "can_calibrate": True,
        "shares_base": False,
    }


def test_ready_is_only_who_has_a_classifier_and_still_runs(start, registry):
    client = start()
    assert client.get("/readyz").status_code == 200
    client.app.state.batcher.close()
    assert client.get("/readyz").status_code == 503
    assert problem(ask(client, ["one"]), 503)
    assert client.get("/healthz").status_code == 200


def test_logs_and_figures_hold_no_text(start):
    client = start()
    ask(client, ["a confidential matter"])
    client.get("/a%20confidential%20path?q=confidential")
    lines = [json.loads(line) for line in client.lines]
    assert [line["status"] for line in lines] == [200, 404]
    assert lines[0] | {"time": "", "ms": 0} == {
        "time": "", "event": "request", "route": "/v1/classify", "method": "POST", "status": 200, "ms": 0,
        "model": "texts", "inputs": 1,
    }  # fmt: skip
    figures = client.get("/metrics").text
    assert 'entailor_inputs_total{model="texts"} 1.0' in figures
    assert 'entailor_requests_total{method="POST",route="/v1/classify",status="200"} 1.0' in figures
    assert "confidential" not in figures + "".join(client.lines)


def test_classifiers_are_loaded_and_unloaded_while_the_server_runs(start, registry, finished_run):
    folder = finished_run.folder.path
    client = start(token=TOKEN, models_folder=folder.parent)
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    loaded = client.post("/v1/models", json={"name": "mine", "path": folder.name})
    assert loaded.status_code == 201, loaded.text
    assert set(loaded.json()["labels"]) == {"entailment", "neutral", "contradiction"}
    answer = ask(client, [["w11 w12", "w0 w13"], ["w14", "w2 w15"]], "mine").json()["results"]
    own = registry.get("mine").predictor.predict([("w11 w12", "w0 w13"), ("w14", "w2 w15")])
    assert [one["label"] for one in answer] == [one.label for one in own]
    assert "served already" in problem(client.post("/v1/models", json={"name": "mine", "path": folder.name}), 409)
    assert client.delete("/v1/models/mine").status_code == 204
    assert problem(ask(client, [["a", "b"]], "mine"), 404)
    assert problem(client.delete("/v1/models/mine"), 404)
    for path in ("..", "/etc", "../../etc", "a\0b"):
        assert "leads out" in problem(client.post("/v1/models", json={"name": "x", "path": path}), 403)
    assert problem(client.post("/v1/models", json={"name": "x", "path": "nothing-here"}), 409)
    assert problem(client.post("/v1/models", json={"name": "a b", "path": folder.name}), 422)


def test_without_a_models_folder_nobody_loads_or_unloads(start):
    client = start(token=TOKEN)
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    assert problem(client.post("/v1/models", json={"name": "mine", "path": "x"}), 403)
    assert problem(client.delete("/v1/models/texts"), 403)


def test_the_document_names_every_route_and_the_page_shows_it_without_other_servers(start):
    client = start()
    document = client.get("/openapi.json").json()
    inputs = document["components"]["schemas"]["ClassifyRequest"]["properties"]["inputs"]
    assert (inputs["maxItems"], [one.get("items", one)["maxLength"] for one in inputs["items"]["anyOf"]]) == (
        ServerSettings().max_inputs,
        [ServerSettings().max_characters] * 2,
    )
    assert set(document["paths"]) == {
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/classify",
        "/v1/models",
        "/v1/models/{name}",
    }
    for path in ("/docs", "/"):
        page = client.get(path)
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "http://" not in page.text
        assert "https://" not in page.text
    for path in document["paths"]:
        assert path in client.get("/docs").text


def test_the_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    assert read_token(None) is None
    monkeypatch.setenv("ENTAILOR_SERVE_TOKEN", "from-the-environment")
    assert read_token(None) == "from-the-environment"
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    assert read_token(file) == "from-the-file"
    for bad in ("", "short", "two words in it", "späteste"):
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(ConfigError, match="token of at least 8"):
            read_token(file)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"port": 70_000}, "--port"),
        ({"wait_ms": -1.0}, "--wait-ms"),
        ({"max_inputs": 0}, "--max-inputs"),
        ({"max_queue": 8}, "never be taken"),
        ({"models_folder": "x"}, "there is no token"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        ServerSettings(**settings)


def test_a_name_comes_from_the_word_or_the_folder():
    assert name_and_path("reviews=runs/a=b") == ("reviews", "runs/a=b")
    assert name_and_path("runs/mine/") == ("mine", "runs/mine/")
    assert name_and_path("runs/a=b") == ("a=b", "runs/a=b")
