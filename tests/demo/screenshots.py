"""Pictures of every tab after a real action, at the widths of a desktop and of a phone, light and dark.

    python -m tests.demo.screenshots http://127.0.0.1:7860 runs/screenshots

The page has to run already. To be looked at: nothing checks them.
"""

import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.demo.browser import BROWSER, FLAGS, open_tab

PATIENCE = 300_000  # milliseconds: the first job of a tab compiles
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


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
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(url)
        tabs = ["sample", "stylise", "edit", "compare", "moving", "transfer", "adapt"]
        for tab in tabs:
            began = time.time()
            open_tab(page, tab)
            act(page, tab)
            page.click(f"#{tab}-start")
            page.wait_for_selector(
                f"#{tab}-status :text-matches('done in|alert'), #{tab}-status [role=alert]",
                timeout=PATIENCE,
            )
            print(tab, page.locator(f"#{tab}-status").inner_text(), f"{time.time() - began:.0f} s")
        cookies = context.storage_state()
        for scheme in ("light", "dark"):
            for name, (width, height) in WIDTHS.items():
                with browser.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    storage_state=cookies,
                ) as other:
                    page = other.new_page()
                    page.goto(url)
                    for tab in tabs:
                        open_tab(page, tab)
                        page.wait_for_timeout(1500)
                        page.screenshot(path=folder / f"{tab}_{name}_{scheme}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
