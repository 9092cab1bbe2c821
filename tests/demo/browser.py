"""The browser that drives the page."""

import shutil

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or ""
# Nothing that asks other servers.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
ATTEMPTS, SOON = 20, 3000  # milliseconds of each


def open_tab(page, name: str) -> None:
    """Opens a tab of the page by its title."""
    from playwright.sync_api import TimeoutError

    title, start = name.capitalize(), page.locator(f"#{name}-start")
    tab = page.get_by_role("tab", name=title, exact=True).locator("visible=true")
    menu = page.locator(".overflow-menu > button")
    page.get_by_role("tablist").first.wait_for()
    # On small screens the last tabs go into a menu, a moment after the page is there: one of the two is to be hit.
    for _ in range(ATTEMPTS):
        try:
            if not tab.count():
                menu.click(timeout=SOON)
                tab = page.locator(".overflow-dropdown button", has_text=title)
            tab.first.click(timeout=SOON)
            start.wait_for(state="visible", timeout=SOON)
            return
        except TimeoutError:
            tab = page.get_by_role("tab", name=title, exact=True).locator("visible=true")
    raise AssertionError(f"the tab {title} does not open")
