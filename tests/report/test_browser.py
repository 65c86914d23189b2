"""The page in a real browser, at the widths of a phone and a screen. Skipped where there is no Chromium."""

import json
import shutil
from collections.abc import Iterator

import pytest

from entailor.report.html import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

SIZES = [(390, 844), (1440, 900)]
FLAGS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "disable-dev-shm-usage",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[object]:
    from selenium.webdriver.chrome.service import Service

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def url(folder) -> str:
    return write_report(folder).resolve().as_uri()


def show(browser, url: str, size: tuple[int, int], scheme: str = "light") -> None:
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    for log in ("browser", "performance"):
        browser.get_log(log)  # what came before is not this page's
    browser.get(url)


def requests(browser) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


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
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide, inner = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= inner


def test_texts_of_the_user_are_shown_and_not_run(browser, url):
    show(browser, url, SIZES[1])
    assert browser.title == "nli-demo – Entailor report"
    shown = browser.execute_script("return document.body.textContent")
    assert "<script>document.title = 'owned'</script>" in shown


def test_right_to_left_text_stands_right(browser, url):
    show(browser, url, SIZES[1])
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
        return ['.lead', '.soft', '.label', '.label.gold', 'td small', 'figure svg text'].map(name => {
          const style = getComputedStyle(document.querySelector(name));
          return [name, ratio(luminance(name.endsWith('text') ? style.fill : style.color), luminance(card))];
        });
        """
    )
    assert [one for one in ratios if one[1] < 4.5] == []


def test_legend_marks_are_drawn(browser, url):
    show(browser, url, SIZES[1])
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.legend .swatch use')].map(one => one.getBBox().width)"
    )
    assert len(boxes) == 8
    assert min(boxes) > 5
