"""Make docs/images/demo.png: the page of `packe demo` after its first edit, by PaCKE+.

    python docs/images/make_demo.py

Needs the extras `demo` and `test`, the model that `packe model fetch` makes, and a Chromium: Playwright's
own, or one on PATH. Takes a minute on a CPU.
"""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from threading import Thread

from PIL import Image
from playwright.sync_api import sync_playwright

from easyedit_packe.cli.demo import editors_for
from easyedit_packe.cli.loading import loaded
from easyedit_packe.demo.serve import bound, server
from easyedit_packe.demo.sessions import SharedModel

MODEL = "smollm2-135m"
PICTURE = Path(__file__).with_name("demo.png")


def shot(address: str) -> bytes:
    """The page as PNG."""
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which("chromium") or shutil.which("google-chrome"))
        page = browser.new_page(viewport={"width": 1180, "height": 600}, device_scale_factor=1.5)
        page.set_default_timeout(300_000)
        page.goto(address)
        page.locator("#answers td").first.wait_for()
        page.get_by_label("PaCKE+:").check()
        page.click("#make")
        page.locator(".packe-edit").wait_for()
        return page.screenshot(full_page=True, animations="disabled")


def main() -> None:
    place = bound(0)
    serving = server(SharedModel(*loaded(MODEL), editors_for(None, MODEL), MODEL))
    thread = Thread(target=serving.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        picture = shot(f"http://127.0.0.1:{place.getsockname()[1]}")
    finally:
        serving.should_exit = True
        thread.join()
    Image.open(BytesIO(picture)).convert("RGB").quantize(64).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
