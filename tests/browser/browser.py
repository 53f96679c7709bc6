"""Chromium over a dashboard that runs on this machine: what `check.py` and `screenshots.py` share."""

import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
from playwright.sync_api import sync_playwright

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
WINDOW = {"width": 1280, "height": 800}
PAGE_LIMIT_MS = 30_000
# The process is an ordinary user's in no container of its own, often root's in CI: there Chromium has no sandbox to use.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--force-color-profile=srgb"]


def chromium():
    """The path of the machine's Chromium, None where there is none."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def launch():
    """Playwright and a browser, both to be closed by the caller."""
    path = chromium()
    if path is None:
        sys.exit("no Chromium on this machine: deploy/setup test installs it")
    playwright = sync_playwright().start()
    return playwright, playwright.chromium.launch(executable_path=path, args=ARGUMENTS)


def context(browser, theme="light", scripts=True):
    """A window with nothing stored, in one theme."""
    made = browser.new_context(
        viewport=WINDOW,
        color_scheme=theme,
        reduced_motion="reduce",
        java_script_enabled=scripts,
        timezone_id="UTC",
        locale="en-GB",
    )
    made.set_default_timeout(PAGE_LIMIT_MS)
    return made


def same_host(base, url):
    """Whether a request for `url` stays with the server at `base`; data and blob URLs never leave the page."""
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob") or parts.netloc == urlsplit(base).netloc
