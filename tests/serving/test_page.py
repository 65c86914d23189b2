"""The page to try texts on, in a real browser. Skipped where there is no Chromium."""

import json
from collections.abc import Iterator

import pytest
from tests.browsing import chromium, open_page
from tests.serving.listening import listening

from entailor.serving.app import create_app
from entailor.serving.lanes import PredictorLane
from entailor.serving.registry import Registry, Served
from entailor.serving.settings import ServerSettings

SIZES = [(390, 844), (1440, 900)]
WAIT = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[object]:
    yield from chromium(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def url(make_predictor) -> Iterator[str]:
    registry = Registry()
    for name, is_pair in (("texts", False), ("pairs", True)):
        predictor = make_predictor(is_pair=is_pair, temperature=None if is_pair else 2.0)
        registry._served[name] = Served(name, predictor, PredictorLane(predictor))
    with listening(create_app(registry, ServerSettings(wait_ms=0))) as address:
        yield address


def until(browser, script):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, WAIT, poll_frequency=0.05).until(lambda opened: opened.execute_script(script))


def show(browser, url, size):
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    open_page(browser, url)
    until(browser, "return document.querySelectorAll('option').length == 2")


def classify(browser, text, **fields):
    count = browser.execute_script("return document.querySelectorAll('article').length")
    for name, value in {"text": text, **fields}.items():
        browser.execute_script(
            "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
            "one.dispatchEvent(new Event('change'))",
            name,
            value,
        )
    browser.execute_script("document.getElementById('go').click()")
    until(browser, f"return document.querySelectorAll('article').length == {count + 1}")
    return browser.execute_script("return document.querySelector('article').textContent")


@pytest.mark.parametrize("size", SIZES)
def test_a_text_is_answered_with_bars_and_nothing_is_cut_off_or_fetched_elsewhere(browser, url, size):
    show(browser, url, size)
    shown = classify(browser, "one two three" + "x" * 300)
    assert "odd" in shown
    assert "90.0 %" in shown
    assert "by texts" in shown
    bars = browser.execute_script(
        "return [...document.querySelectorAll('article .bar')].map(one => "
        "one.firstChild.getBoundingClientRect().width / one.getBoundingClientRect().width)"
    )
    assert bars == pytest.approx([0.9, 0.05, 0.05], abs=0.01)
    wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner == size[0]
    assert wide <= inner
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    # the empty tab the browser opens with asks for things of its own
    asked = [one["request"]["url"] for one in sent if not one["documentURL"].startswith("chrome")]
    assert asked[0] == f"{url}/"
    assert [one for one in asked if not one.startswith((url, "data:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_why_it_abstained_is_said(browser, url):
    show(browser, url, SIZES[0])
    shown = classify(browser, "unsure", least="0.5")
    assert "No label" in shown
    assert "Abstained: the most probable label, odd, has 40.0 %, below 50.0 %." in shown


def test_right_to_left_texts_and_labels_stand_right(browser, url):
    show(browser, url, SIZES[0])
    classify(browser, "كلمة واحدة")
    directions = browser.execute_script(
        "const at = one => getComputedStyle(one).direction;"
        "return [at(document.getElementById('text')), at(document.querySelector('article blockquote')),"
        "        at(document.querySelector('article .bars'))]"
    )
    assert directions == ["rtl", "rtl", "ltr"]
    label = browser.execute_script(
        "return getComputedStyle([...document.querySelectorAll('article bdi')].find(b => b.textContent == 'سؤال'))"
        ".direction"
    )
    assert label == "rtl"


def test_a_classifier_of_pairs_asks_for_two_texts(browser, url):
    show(browser, url, SIZES[1])
    hidden = "return getComputedStyle(document.getElementById('pair')).display"
    assert browser.execute_script(hidden) == "none"
    shown = classify(browser, "one", model="pairs", second="two three")
    assert browser.execute_script(hidden) == "block"
    assert "by pairs" in shown
    assert browser.execute_script("return document.getElementById('calibrated').disabled")


def test_a_text_is_shown_and_not_run_and_an_error_is_said(browser, url):
    show(browser, url, SIZES[1])
    shown = classify(browser, "<img src=x onerror=\"document.title='owned'\">")
    assert "<img src=x" in shown
    assert browser.title == "Entailor – try a classifier"
    browser.execute_script("document.getElementById('text').value = 'x'.repeat(30000)")
    browser.execute_script("document.getElementById('go').click()")
    assert "at most 20,000" in until(browser, "return document.getElementById('error').textContent")


def test_the_interface_is_documented_without_a_script(browser, url):
    open_page(browser, f"{url}/docs")
    assert "/v1/classify" in browser.execute_script("return document.body.textContent")
    assert browser.execute_script("return document.scripts.length") == 0
