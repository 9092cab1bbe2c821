"""A request as the guard sees it: what it asks, within bounds, and the way back to the browser."""

import asyncio
import ipaddress
import json
import math
import re
import time
from collections.abc import Collection
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from nada_jax.demo import visitors

JSON_BYTES = 1_000_000  # of a body that is no upload: texts and numbers
PATIENCE = 60.0  # seconds for a whole body
# Scripts of the page itself, which Gradio writes into it; nothing of other servers, no frames around it. No text becomes
# code: gr.HTML and the plots of Vega, which need 'unsafe-eval', stay empty; gr.Markdown and pictures do instead.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
WRONG = "something went wrong; the log of the server says what"


class Refused(Exception):
    """A request that is not answered: the status and a sentence."""

    def __init__(self, status: int, sentence: str, **headers: str):
        super().__init__(sentence)
        self.status, self.headers = status, headers


class Asked:
    """A request, and the way back, on which every answer gets the headers of this layer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send):
        self.scope, self._receive, self._send = scope, receive, send
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.visitor = ""
        self._cookie = ""
        self._begun = self._muted = False

    def header(self, name: str) -> str:
        values = [x for key, x in self.scope["headers"] if key == name.encode()]
        return values[0].decode("latin-1") if len(values) == 1 else ""

    def query(self, name: str) -> str:
        return Request(self.scope).query_params.get(name, "")

    def set_visitor(self, visitor: str) -> None:
        """Makes the one who asks a visitor from now on."""
        self.visitor = visitor
        # Not "Strict": who comes by a link would get a new cookie, and lose what he had. What changes anything is a
        # POST, which needs this page's Origin besides.
        self._cookie = (
            f"{visitors.COOKIE}={visitor}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000"
        )
        if self.scope.get("scheme") == "https":
            self._cookie += "; Secure"

    def limited(self, most: int, sentence: str) -> Receive:
        """What is received; Refused where that is more than `most` bytes, or does not come."""
        length = self.header("content-length")
        if length.isdigit() and int(length) > most:
            raise Refused(413, sentence, connection="close")
        left, end = most, time.monotonic() + PATIENCE

        async def receive() -> Message:
            nonlocal left
            try:
                message = await asyncio.wait_for(self._receive(), max(end - time.monotonic(), 0))
            except TimeoutError:
                late = "the request did not come within a minute"
                raise Refused(408, late, connection="close") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            left -= len(message.get("body", b""))
            if left < 0:
                raise Refused(413, sentence, connection="close")
            return message

        return receive

    async def body(self, most: int, sentence: str) -> bytes:
        """The whole body; Refused as by `limited`."""
        receive, body, more = self.limited(most, sentence), bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return bytes(body)

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        body = await self.body(JSON_BYTES, f"the request is larger than {JSON_BYTES:,} bytes")
        try:
            value = json.loads(body, parse_constant=_no_number, parse_float=_number)
            # Halves of surrogate pairs are JSON, but no text.
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise Refused(400, "the request is not JSON") from None
        if not isinstance(value, dict):
            raise Refused(400, "the request is not a JSON object")
        return value

    def replay(self, body: bytes) -> Receive:
        """What Gradio receives: the body, and then what the browser does."""
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                return await self._receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive

    async def respond(self, answer: Response) -> None:
        """Answers here."""
        if self._begun:  # too late; the stream ends
            return
        await answer(self.scope, self._receive, self.send)

    async def send(self, message: Message) -> None:
        """Passes an answer on; of one that reports a fault, only that there is one."""
        if message["type"] == "http.response.start":
            self._begun = True
            status, headers = message["status"], dict(HEADERS)
            theirs = [(k, x) for k, x in message["headers"] if k.lower().decode() not in HEADERS]
            if status >= 500:
                self._muted = True
                # Gradio says so of a queue that is full.
                status = 429 if status == 503 else status
                theirs = [(b"content-type", b"text/plain; charset=utf-8")]
            if self._cookie:
                headers |= {"set-cookie": self._cookie, "cache-control": "no-store"}
            ours = [(key.encode(), value.encode()) for key, value in headers.items()]
            message = {**message, "status": status, "headers": theirs + ours}
        elif self._muted:
            if message.get("more_body"):
                return
            message = {"type": "http.response.body", "body": f"{WRONG}\n".encode()}
        await self._send(message)


def check_host(request: Asked, names: Collection[str]) -> None:
    """Names that nobody gave this page are those of attackers: they let a browser take it for their site.

    Addresses are not: to rebind one, there must be a name.
    """
    host = request.header("host").lower()
    match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?", host)
    name = (match[1] or match[2]) if match else ""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if name != "localhost" and name not in names:
            raise Refused(
                421,
                "the page is not known by this name; ask for it by its address, or start it with "
                "--config.demo.names=\"('NAME',)\"",
            ) from None


def check_origin(request: Asked) -> None:
    """Only this page may change anything: browsers say which page asks."""
    origin, site = request.header("origin"), request.header("sec-fetch-site")
    host = request.header("host")
    foreign = origin and origin.lower().partition("://")[2] != host.lower()
    if foreign or site not in ("", "same-origin", "none"):
        raise Refused(403, "another page sent this; use the page of this server")


def _number(digits: str) -> float:
    """A number that has not become infinite, as 1e999 does."""
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{digits} is too large")
    return number


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
