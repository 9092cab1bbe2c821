"""Who asks: a random cookie of each browser, and the folder that belongs to it."""

import re
import secrets
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

COOKIE = "nada_visitor"
FORM = re.compile(
    r"[0-9a-f]{32}"
)  # 128 bits: nobody guesses another's, and it is a safe name of a folder


def new() -> str:
    """A visitor that nobody was before."""
    return secrets.token_hex(16)


def from_cookies(header: str) -> str:
    """The visitor that a header `Cookie` names, or ""."""
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None and FORM.fullmatch(found.value) else ""


def visitor(request: Any) -> str:
    """The visitor behind a `gr.Request`; the guard lets none through without one."""
    value = from_cookies(request.request.headers.get("cookie", ""))
    if not value:
        raise PermissionError("a request without a visitor passed the guard")
    return value


def owns(results: Path, visitor: str, path: str | Path) -> bool:
    """Whether a path is a file of the visitor's own."""
    return within(results / visitor, path)


def within(folder: Path, path: str | Path) -> bool:
    """Whether a path is a file within a folder, symbolic links followed."""
    try:
        real = Path(path).resolve(strict=True)
        return real.is_file() and real.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # absent or too long, a NUL byte, links in a circle
        return False
