"""The browser that drives the page."""

import shutil

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or ""
# Nothing that asks other servers.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def open_tab(page, name: str) -> None:
    """Opens a tab of the page by its title."""
    title = name.capitalize()
    tab = page.get_by_role("tab", name=title, exact=True).locator("visible=true")
    page.get_by_role("tab").locator("visible=true").first.wait_for()
    if not tab.count():  # on small screens the last ones are in a menu
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown button", has_text=title)
    tab.click()
    page.wait_for_selector(f"#{name}-start", state="visible")
