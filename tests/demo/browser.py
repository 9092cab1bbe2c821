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
    title, start = name.capitalize(), page.locator(f"#{name}-start")
    tab = page.get_by_role("tab", name=title, exact=True).locator("visible=true")
    menu = page.locator(".overflow-menu > button")
    # On small screens the last tabs go into a menu, a moment after the page is there.
    page.wait_for_load_state("networkidle")
    if not tab.count():
        menu.click()
        tab = page.locator(".overflow-dropdown button", has_text=title)
    tab.click()
    start.wait_for(state="visible")
