"""A headless Chromium for tests of pages: Playwright's own, or the one of this machine."""

import shutil
from contextlib import contextmanager

import pytest


@contextmanager
def chromium():
    """A browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        own = [path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path]
        for options in ({}, *({"executable_path": path} for path in own)):
            try:
                browser = p.chromium.launch(**options)
            except playwright.Error:
                continue
            yield browser
            browser.close()
            return
    pytest.skip("no Chromium: `playwright install chromium`, or one of the system on PATH")
