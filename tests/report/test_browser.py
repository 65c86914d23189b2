"""The page in a real browser, at the widths of a phone and a screen. Skipped where there is no Chromium."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.browsing import chromium, open_page

from entailor.report.html import write_report

SIZES = [(390, 844), (1440, 900)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[object]:
    yield from chromium(tmp_path_factory.mktemp("profile"))


@pytest.fixture(scope="module")
def url(folder) -> str:
    return write_report(folder).resolve().as_uri()


def show(browser, url: str, size: tuple[int, int], scheme: str = "light") -> None:
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    open_page(browser, url)


def unfold(browser) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")


def texts(browser, selector: str) -> list[str]:
    """Return the texts that stand in the page and are not hidden."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].filter(one => !one.closest('[hidden]'))"
        ".map(one => one.textContent.trim())",
        selector,
    )


def choose(browser, name: str, value: str) -> None:
    browser.execute_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        "for (const kind of ['input', 'change']) one.dispatchEvent(new Event(kind))",
        name,
        value,
    )


def requests(browser) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    # the empty tab the browser opens with asks for things of its own
    return [one["request"]["url"] for one in sent if not one["documentURL"].startswith("chrome")]


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_complained_of_fetched_or_cut_off(browser, url, size):
    show(browser, url, size)
    asked = requests(browser)
    assert asked[0] == url  # the log does record
    assert [one for one in asked[1:] if not one.startswith("data:")] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner == size[0]
    assert wide <= inner


@pytest.mark.parametrize("size", SIZES)
def test_nothing_overflows_with_everything_unfolded(browser, url, size):
    show(browser, url, size)
    unfold(browser)
    wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner


def test_a_long_name_pushes_no_figure_out_of_sight(browser, records, new_folder, tmp_path):
    long = [replace(one, name=one.name.ljust(200, "x")) for one in records if one.name in ("lora", "majority")]
    show(browser, write_report(new_folder(tmp_path / "long", long)).resolve().as_uri(), (1440, 900))
    shown, whole = browser.execute_script(
        "const one = document.getElementById('results').closest('.scroll'); return [one.clientWidth, one.scrollWidth]"
    )
    assert whole <= shown


def test_texts_of_the_user_are_shown_and_not_run(browser, url):
    show(browser, url, SIZES[1])
    assert browser.title == "nli-demo – Entailor report"
    shown = browser.execute_script("return document.body.textContent")
    assert "<script>document.title = 'owned'</script>" in shown


def test_right_to_left_text_stands_right(browser, url):
    show(browser, url, SIZES[1])
    unfold(browser)
    directions = browser.execute_script(
        "return [...document.querySelectorAll('.example p')].filter(p => /[\\u0600-\\u06ff]/.test(p.textContent))"
        ".map(p => getComputedStyle(p).direction)"
    )
    assert directions
    assert set(directions) == {"rtl"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(browser, url, scheme):
    show(browser, url, SIZES[1], scheme)
    ratios = browser.execute_script(
        """
        const luminance = text => {
          const part = text.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
          return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
        };
        const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const card = getComputedStyle(document.querySelector('.card')).backgroundColor;
        const shown = ['.lead', '.soft', '.label', '.label.gold', 'td small', 'th button', 'select', 'figure svg text'];
        return shown.map(name => {
          const style = getComputedStyle(document.querySelector(name));
          return [name, ratio(luminance(name.endsWith('text') ? style.fill : style.color), luminance(card))];
        });
        """
    )
    assert [one for one in ratios if one[1] < 4.5] == []


def test_legend_marks_are_drawn(browser, url):
    show(browser, url, SIZES[1])
    unfold(browser)
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.legend .swatch use')].map(one => one.getBBox().width)"
    )
    assert len(boxes) == 8
    assert min(boxes) > 5


NAMES = "#results tbody th bdi"


def test_the_table_is_sorted_and_filtered(browser, url):
    show(browser, url, SIZES[1])
    first = texts(browser, NAMES)
    assert first[0] == "full_finetuning"
    click = "document.querySelectorAll('#results thead button')[arguments[0]].click()"
    browser.execute_script(click, 0)
    assert texts(browser, NAMES) == sorted(first)
    browser.execute_script(click, 4)  # training time: a number, not the text "2.1 s"
    assert texts(browser, NAMES)[:3] == ["majority", "hypothesis_only", "bag_of_words"]
    assert texts(browser, "#results th[aria-sort=ascending]") == ["Training"]
    choose(browser, "results-name", "Tuning")
    assert set(texts(browser, NAMES)) == {"prefix_tuning", "p_tuning", "full_finetuning"}
    assert texts(browser, "#results-count") == ["3 of 8"]
    choose(browser, "results-name", "")
    choose(browser, "results-show", "useful")
    assert set(texts(browser, NAMES)) == {"full_finetuning", "lora"}


def test_errors_are_searched_sorted_and_set_side_by_side(browser, url, records):
    show(browser, f"{url}#errors", SIZES[1])
    assert browser.execute_script("return document.querySelector('#errors').closest('details').open")
    own = {one.name: one.predictions for one in records if one.seed == 0}
    wrong = [one for one in own["full_finetuning"] if one.predicted != one.label]
    assert texts(browser, "#errors-count")[0].startswith(f"{len(wrong)} examples")
    shown = [int(text.removesuffix(" %")) for text in texts(browser, "#errors-table td:nth-child(4)")]
    assert len(shown) == 50
    assert shown == sorted(shown, reverse=True)
    assert "✗" in texts(browser, "#errors-table td:nth-child(3)")[0]
    choose(browser, "errors-text", "committee met on tuesday")
    assert texts(browser, "#errors-count") == [f"{sum('Tuesday' in one.text for one in wrong)} examples"]
    choose(browser, "errors-text", "")
    choose(browser, "errors-second", str(texts(browser, "#errors-second option").index("linear_probe") - 1))
    choose(browser, "errors-show", "fixed")
    pairs = zip(own["full_finetuning"], own["linear_probe"], strict=True)
    better = sum(a.predicted != a.label and b.predicted == b.label for a, b in pairs)
    assert better > 0
    assert texts(browser, "#errors-count") == [f"{better} example{'' if better == 1 else 's'}"]
    assert all("✓" in text for text in texts(browser, "#errors-table td:nth-child(5)"))


def test_names_roles_and_heads_are_there(browser, url):
    """What a screen reader needs, by hand; the whole of axe-core is run by hand as well."""
    show(browser, url, SIZES[0])
    unfold(browser)
    assert (
        browser.execute_script(
            "return [...document.querySelectorAll('input, select')].filter(one => !one.labels.length).length"
        )
        == 0
    )
    assert browser.execute_script("return [...document.querySelectorAll('th')].filter(one => !one.scope).length") == 0
    levels = browser.execute_script("return [...document.querySelectorAll('h1, h2, h3')].map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert all(later <= before + 1 for before, later in itertools.pairwise(levels))
    in_sentence = "const one = document.querySelector('main p, p'); one.innerHTML += '<a href=\"#results\">x</a>';"
    assert (
        browser.execute_script(f"{in_sentence} return getComputedStyle(one.lastChild).textDecorationLine")
        == "underline"
    )
    names = browser.execute_script("return [...document.querySelectorAll('[role=region]')].map(one => one.ariaLabel)")
    assert len(names) == len(set(names))
