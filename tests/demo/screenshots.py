"""Pictures of every tab after a real action, at the widths of a desktop and of a phone, light and dark.

    python -m tests.demo.screenshots http://127.0.0.1:7860 runs/screenshots

The page has to run already. To be looked at: nothing checks them.
"""

import itertools
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.demo.browser import BROWSER, FLAGS, open_tab

PATIENCE = 600_000  # milliseconds: the first job of a tab compiles
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
TABS = "sample", "stylise", "edit", "compare", "moving", "transfer", "adapt"
ENDED = "#{0}-status :text('done in'), #{0}-status [role=alert]"


def act(page: Page, tab: str) -> None:
    """What a visitor does in a tab before its button is pressed."""
    for examples in page.locator(f"[id^={tab}][id$=-examples]:visible").all():
        if tab != "edit":
            examples.locator("button").first.click()
            page.wait_for_timeout(3000)
    if tab == "adapt":
        page.locator("#adapt-steps input[type=number]").fill("4")


def main(url: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=FLAGS)
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        for tab in TABS:
            began = time.time()
            open_tab(page, tab)
            act(page, tab)
            page.click(f"#{tab}-start")
            page.wait_for_selector(ENDED.format(tab), timeout=PATIENCE)
            print(tab, page.locator(f"#{tab}-status").inner_text(), f"{time.time() - began:.0f} s")
        shoot(browser, url, folder, context.storage_state())
        browser.close()


def shoot(browser: Browser, url: str, folder: Path, cookies: Any) -> None:
    """Takes the pictures of a visitor's results, which a page that is loaded anew finds again."""
    for scheme, (name, size) in itertools.product(("light", "dark"), SIZES.items()):
        context = browser.new_context(viewport=size, color_scheme=scheme, storage_state=cookies)
        page = context.new_page()
        page.goto(url)
        for tab in TABS:
            open_tab(page, tab)
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"{tab}_{name}_{scheme}.png", full_page=True)
        context.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
