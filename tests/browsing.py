"""A real Chromium that pages are opened in; tests of pages are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
    "no-proxy-server",
)


def chromium(profile: Path) -> Iterator[Any]:
    """Open a browser that keeps what pages log and ask for, and close it when the test is through.

    Args:
        profile: an empty folder.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


def open_page(browser: Any, url: str) -> None:
    """Open a page and wait until it is whole; its logs begin empty.

    An empty page comes between, since a page that is opened again may pass for loaded while it still goes.
    """
    from selenium.webdriver.support.wait import WebDriverWait

    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)  # what came before is not this page's
    browser.get(url)
    whole = "return location.href !== 'about:blank' && document.readyState === 'complete'"
    WebDriverWait(browser, 600).until(lambda _: browser.execute_script(whole))
