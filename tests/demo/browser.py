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
    page.get_by_role("tab", name=name.capitalize(), exact=True).click()
    page.wait_for_selector(f"#{name}-start", state="visible")
