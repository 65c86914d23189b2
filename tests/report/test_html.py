import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from entailor.errors import RunError
from entailor.evaluation.comparison import compare_records
from entailor.report import examples
from entailor.report.advice import advice
from entailor.report.html import render, write_report
from entailor.runs.files import write_checked_json
from entailor.runs.layout import RunFolder
from entailor.runs.record import Prediction, RunRecord

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, text and ids, and fails on tags that do not close in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text, self.ids, self.attributes = [], [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script", "text"):
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def page(folder):
    path = write_report(folder)
    assert path == folder.report_file
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(page):
    return Page(page)


def test_the_page_is_complete_in_itself(page, parsed):
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    own = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{own}'; " in page
    assert parsed.tags.count("script") == 2  # the other holds data, which no browser runs
    assert "iframe" not in parsed.tags
    assert "img" not in parsed.tags
    for key, value in parsed.attributes:
        assert not key.startswith("on")
        if key in ("href", "src", "xlink:href"):
            assert value.startswith(("#", "data:")), value
    assert set(re.findall(r"https?://[\w./]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in page


def test_ids_are_unique_and_links_lead_somewhere(parsed):
    assert len(parsed.ids) == len(set(parsed.ids))
    targets = {value[1:] for key, value in parsed.attributes if key == "href" and value.startswith("#")}
    assert targets <= set(parsed.ids)


def test_a_time_that_rounds_to_nothing_is_not_written_as_nothing(records, new_folder, tmp_path):
    quick = [replace(one, costs=replace(one.costs, latency_p50_ms=0.004, latency_p95_ms=0.03)) for one in records]
    page = write_report(new_folder(tmp_path / "quick", quick)).read_text(encoding="utf-8")
    assert page.count("&lt;0.1 ms") >= 3  # in both tables and the reasons
    assert "0.0 ms" not in page


def test_texts_of_the_user_stay_text(page, parsed):
    assert set(re.findall(r"<script[^>]*>", page)) == {"<script>", '<script type="application/json" id="errors-data">'}
    assert "&lt;script&gt;document.title = &#39;owned&#39;&lt;/script&gt;" in page
    assert "<img" not in page
    assert "<b>left" not in page


def test_every_section_is_there(parsed, comparison):
    assert comparison["sentence"] in parsed.words
    for words in (
        "Always naming the most frequent label would be right 33.3 %",
        "out of memory: 9.1 GB needed",
        "predictions collapsed to one label",
        "12 rows without a gold label were dropped.",
        "warning: 3 rows of train stand in test. Drop them",
        "2,100 train",
        "entailor compare --seeds 2",
        "note: <script>alert(1)</script>",
        '"transformers": "5.23.0"',
        "numbers and comparatives",
        "undefined",
        "premise",
        "1.2 % of the test examples were longer",
        advice(comparison).sentence,
        "The rule: Among the candidates that beat the majority baseline and are shown",
        "Every two candidates",
        "With 300 test examples a lead of",
        "The temperature is fitted on validation and shown on test",
        "External test sets",
        "<b>hans</b>",
        "gone.csv: no such file",
    ):
        assert words in parsed.words, words
    assert parsed.tags.count("figure") == 10
    assert [tag for tag in ("1 trial failed", "1 candidate raised an alarm") if tag not in parsed.words] == []


def test_right_to_left_text_has_its_direction(page):
    assert re.search(r'<p dir="auto"><span class="part" dir="ltr">premise</span>كل الطلاب', page)


def test_the_page_is_the_same_each_time(folder, page):
    assert write_report(folder).read_text(encoding="utf-8") == page


def test_thirty_candidates_with_five_seeds_stay_below_three_megabytes(new_record):
    row = ("lora", 0.7, 100.0, 1000, 4000, 6)
    trials = [new_record((f"lora_{i}", *row[1:]), 0, 20) for i in range(30)]
    long = [
        replace(one, predictions=tuple(replace(p, text=f"{p.text} " + "long " * 150) for p in one.predictions))
        for one in trials
    ]
    many = compare_records([replace(one, seed=seed) for one in long for seed in range(5)])
    page = render(name="x", comparison=many, records=long)
    shown = errors_of(page)
    assert len(shown["candidates"]) == 30
    assert len(page.encode()) < 2_000_000
    # what does not grow with candidates is bounded for any number of examples
    example, answers = shown["examples"][0], 30 * len("99,2,")
    assert examples.MOST_ERROR_BYTES + examples.MOST_ERRORS * (answers + 20) < 1_100_000
    assert len(example[0]) <= examples.MOST_CHARACTERS + 2


def errors_of(page):
    found = re.search(r'<script type="application/json" id="errors-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


def test_the_errors_of_the_recommended_candidate_are_all_there(page, comparison, records):
    found = errors_of(page)
    pick = found["candidates"].index("full_finetuning")
    assert found["pick"] == pick
    record = next(one for one in records if one.name == "full_finetuning" and one.seed == 0)
    expected = {
        (one.text if len(one.text) <= 600 else one.text[:600].rstrip() + " …", one.label, one.predicted)
        for one in record.predictions
        if one.label != one.predicted
    }
    shown = {
        (example[0], found["labels"][example[2]], found["labels"][predicted])
        for example, predicted in zip(found["examples"], found["predicted"][pick], strict=True)
        if example[2] != predicted
    }
    assert shown == expected
    assert found["left_out"] == 0


def test_too_many_errors_are_counted_and_those_of_the_pick_come_first(monkeypatch, comparison, records):
    monkeypatch.setattr(examples, "MOST_ERRORS", 5)
    candidates = [{**one, "title": one["method"]} for one in comparison["candidates"]]
    found = examples.errors(records, candidates, comparison["labels"], 1)
    assert len(found["examples"]) == 5
    assert found["left_out"] > 100
    assert all(one[2] != said for one, said in zip(found["examples"], found["predicted"][1], strict=True))
    monkeypatch.setattr(examples, "MOST_ERROR_BYTES", 10)
    assert examples.errors(records, candidates, comparison["labels"], 1) is None


def test_only_the_comparison_is_needed(tmp_path, records):
    folder = RunFolder(tmp_path / "bare")
    write_checked_json(folder.comparison_file, compare_records(records))
    words = Page(write_report(folder).read_text(encoding="utf-8")).words
    assert "Not recorded in this run folder." in words
    assert "Hardest examples" not in words


def test_no_comparison_says_the_next_step(tmp_path):
    with pytest.raises(RunError, match=r"comparison.json: no such file. Is this the folder of a finished run"):
        write_report(RunFolder(tmp_path))


def test_something_else_under_its_name_is_refused(tmp_path):
    write_checked_json(tmp_path / "comparison.json", {"candidates": []})
    with pytest.raises(RunError, match="no comparison of trials"):
        write_report(RunFolder(tmp_path))


def test_all_trials_failed(records):
    failed = records[-1]
    words = Page(render(name="x", comparison=compare_records([failed]), records=[failed])).words
    assert "No trial finished: 1 of 1 failed." in words
    assert "out of memory" in words


def test_the_cheapest_of_level_rows_is_recommended(records):
    lora = next(record for record in records if record.name == "lora")
    small = replace(lora, name="small", costs=replace(lora.costs, train_seconds=3.0, stored_bytes=10))
    words = Page(render(name="x", comparison=compare_records([lora, small]), records=[lora, small])).words
    assert "tied with best" in words
    told = "small is recommended: of 2 candidates shown to be within 2 points of the most accurate it is the smallest"
    assert f"{told} to store." in words
    assert "What would change it If accuracy alone counted, it would be lora." in words
    table = words.split("Stored", 1)[1]
    assert re.search(r"small\s+recommended", table)


def test_parts_a_comparison_does_not_hold_are_not_shown(comparison, records):
    new = ("pairs", "detectable", "recommendation", "external")
    rows = [
        {key: value for key, value in row.items() if key not in ("coverage", "calibrated")}
        for row in comparison["candidates"]
    ]
    old = {**{key: value for key, value in comparison.items() if key not in new}, "candidates": rows}
    words = Page(render(name="x", comparison=old, records=records)).words
    assert comparison["sentence"] in words
    assert "Why this one" not in words
    assert "Confidence and abstaining" not in words


def test_two_models_share_one_page(records):
    lora = next(record for record in records if record.name == "lora")
    both = [lora, replace(lora, model="org/<i>other</i>")]
    page = render(name="x", comparison=compare_records(both), records=both)
    assert "lora · tiny-encoder" in Page(page).words
    assert "<i>" not in page


@pytest.mark.parametrize(("count", "is_kept"), [(77, True), (101, False)])
def test_many_labels_are_listed_as_confusions(count: int, is_kept: bool):
    labels = tuple(f"intent {i}" for i in range(count))
    said = [i % count if i < 700 else 5 for i in range(770)]  # the last seventy are all taken for intent 5
    predictions = tuple(
        Prediction(str(i), labels[i % count], {label: float(label == labels[said[i]]) for label in labels})
        for i in range(770)
    )
    record = RunRecord("m", "lora", "lora", 0, labels, predictions=predictions)
    found = compare_records([record])
    (candidate,) = found["candidates"]
    assert (candidate["confusion"] is not None) is is_kept
    assert len(candidate["confusions"]) == 20
    first = candidate["confusions"][0]
    assert (first["predicted"], first["count"]) == ("intent 5", 1)
    assert first["share"] == pytest.approx(1 / sum(one.label == first["gold"] for one in predictions))
    page = render(name="x", comparison=found, records=[record])
    assert "Most frequent confusions" in page
    assert len(page) < 300_000
    assert "first text" not in page  # single texts have no parts


def test_half_a_surrogate_pair_does_not_spoil_the_page(records):
    lora = next(record for record in records if record.name == "lora")
    broken = replace(lora, predictions=tuple(replace(row, text="bad \ud83d text") for row in lora.predictions))
    page = render(name="x", comparison=compare_records([broken]), records=[broken])
    assert "bad ? text" in page.encode("utf-8").decode("utf-8")


def test_prompts_are_shown_token_by_token(tmp_path, records, new_folder):
    record = records[0]
    prompt = {"label": "neutral", "id": "x", "tokens": ["<b>", "Answer", ":"], "slot": [" Neither"]}
    head = {"label": "neutral", "id": "x", "tokens": ["w"] * 4000, "slot": []}
    record = replace(record, provenance={"prompts": [prompt, head]})
    page = write_report(new_folder(tmp_path / "run", [record])).read_text(encoding="utf-8")
    assert '<span class="t">&lt;b&gt;</span><span class="t">Answer</span><span class="t">:</span>' in page
    assert '<mark class="t"> Neither</mark>' in page
    assert "… 2500 tokens left out …" in page
    assert "the head reads here" in page
