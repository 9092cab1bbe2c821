"""The layer in front of Gradio: lets through what the page needs, and nothing else.

Gradio 6.17 serves more than this page uses, and some of it has faults that later releases mended: `/file=` with an
address redirects or fetches, `/proxy=` fetches, files of one visitor can be read by another who knows their path. So
routes are an allow-list, files and uploads are answered here, and what a browser sends to Gradio's queue is made anew
from the few fields that are known.
"""

import asyncio
import base64
import collections
import ipaddress
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nada_jax.demo import uploads, visitors
from nada_jax.demo.site import Site
from nada_jax.errors import UserError

LOG = logging.getLogger(__name__)
API = "/gradio_api"
JSON_BYTES = 1_000_000  # of a body that is no upload: texts and numbers
FORM_BYTES = 100_000  # of a multipart body beside its file
PATIENCE = 60.0  # seconds for a whole body
SESSIONS = 10_000  # pages of all visitors that are known at once
EVENTS, WINDOW = 200, 10.0  # that one visitor may send within so many seconds
DENIED = 1.0  # seconds before a wrong password is answered, which slows down who tries many
SESSION = re.compile(r"[0-9a-zA-Z_-]{1,64}")  # Gradio's name of one loaded page
NAME = r"[\w.@-]+"
PATHS = (
    r"(?!.*(?:^|/)\.\.?(?:/|$))" + rf"{NAME}(?:/{NAME})*"
)  # of Gradio's own scripts and pictures
STILL = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4")  # shown in the page; others are saved
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


class Route(NamedTuple):
    """A path that the page needs, its methods, and what answers it: a method of Guard, or Gradio."""

    pattern: str
    methods: tuple[str, ...]
    answer: str = ""
    known: bool = False  # whether only visitors with a cookie may ask


READ = ("GET", "HEAD")
ROUTES = (
    Route(r"/", READ, "page"),
    Route(rf"/(?:assets|static|svelte)/{PATHS}", READ),
    Route(r"/(?:theme\.css|favicon\.ico|manifest\.json|robots\.txt)", READ),
    Route(rf"{API}/theme\.css", READ),
    Route(r"/config/?", ("GET",)),
    Route(
        rf"{API}/app_id/?", ("GET",)
    ),  # by which a page whose connection was lost knows its server again
    Route(rf"{API}/file=(?P<path>.*)", READ, "file", known=True),
    Route(rf"{API}/upload/?", ("POST",), "upload", known=True),
    Route(rf"{API}/upload_progress/?", ("GET",), "upload_progress", known=True),
    Route(rf"{API}/queue/join/?", ("POST",), "join", known=True),
    Route(rf"{API}/queue/data", ("GET",), "session", known=True),
    Route(rf"{API}/heartbeat/(?P<session>[^/]*)", ("GET",), "session", known=True),
    Route(rf"{API}/(?:cancel|reset)/?", ("POST",), "ending", known=True),
)


class Refused(Exception):
    """A request that is not answered: the status and a sentence."""

    def __init__(self, status: int, sentence: str, **headers: str):
        super().__init__(sentence)
        self.status, self.headers = status, headers


class Guard:
    """An ASGI application around Gradio's.

    Args:
      app: Gradio's.
      site: the page's common part.
      functions: number of an event of the page -> how many values its inputs send.
      shown: folders of pictures that all visitors may see.
      names: host names by which the page may be asked for, beside addresses and localhost.
    """

    def __init__(
        self,
        app: ASGIApp,
        site: Site,
        functions: Mapping[int, int],
        shown: tuple[Path, ...] = (),
        names: tuple[str, ...] = (),
    ):
        self.app, self.site, self.functions, self.shown = app, site, functions, shown
        self.names = {name.lower() for name in names}
        self._password = site.settings.demo.auth
        self._routes = [(re.compile(route.pattern), route) for route in ROUTES]
        self._sessions: collections.OrderedDict[str, str] = collections.OrderedDict()
        self._events: collections.OrderedDict[str, collections.deque[float]] = (
            collections.OrderedDict()
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = _Asked(scope, receive, send)
        try:
            await self._answer(request)
        except Refused as refusal:
            text = PlainTextResponse(f"{refusal}\n", refusal.status, refusal.headers)
            await request.respond(text)
        except ClientDisconnect:
            pass
        except Exception:
            LOG.exception("a request failed")
            await request.respond(PlainTextResponse(f"{WRONG}\n", 500))

    async def _answer(self, request: "_Asked") -> None:
        self._check_host(request)
        await self._check_password(request)
        route, found = self._route(request)
        if request.method == "POST":
            _check_origin(request)
        request.visitor = visitors.from_cookies(request.header("cookie"))
        if route.known and not request.visitor:
            raise Refused(403, "this page needs its cookie; allow cookies, and load the page anew")
        if route.answer:
            await getattr(self, f"_{route.answer}")(request, found)
        else:
            await self._pass(request)

    # -- Who asks, and for what ------------------------------------------------------------------------

    def _check_host(self, request: "_Asked") -> None:
        """Names that nobody gave this page are those of attackers: they let a browser take it for their site.

        Addresses are not: to rebind one, there must be a name.
        """
        host = request.header("host").lower()
        match = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d{1,5})?", host)
        name = (match[1] or match[2]) if match else ""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            if name != "localhost" and name not in self.names:
                raise Refused(
                    421,
                    "the page is not known by this name; ask for it by its address, or start it with "
                    "--config.demo.names=\"('NAME',)\"",
                ) from None

    async def _check_password(self, request: "_Asked") -> None:
        if not self._password:
            return
        kind, _, given = request.header("authorization").partition(" ")
        try:
            told = base64.b64decode(given, validate=True) if kind.lower() == "basic" else b""
        except ValueError:
            told = b""
        if not secrets.compare_digest(told, self._password.encode()):
            await asyncio.sleep(DENIED if given else 0)
            challenge = {"www-authenticate": 'Basic realm="nada_jax", charset="UTF-8"'}
            raise Refused(401, "this page needs a user and a password", **challenge)

    def _route(self, request: "_Asked") -> tuple[Route, re.Match[str]]:
        for pattern, route in self._routes:
            if found := pattern.fullmatch(request.path):
                if request.method not in route.methods:
                    allow = ", ".join(route.methods)
                    raise Refused(405, f"expected {' or '.join(route.methods)}", allow=allow)
                return route, found
        raise Refused(404, "there is no such page")

    def _claim(self, session: Any, visitor: str) -> str:
        """A session belongs to the visitor who names it first."""
        if not isinstance(session, str) or not SESSION.fullmatch(session):
            raise Refused(400, "the name of the session is none; load the page anew")
        if self._sessions.setdefault(session, visitor) != visitor:
            raise Refused(403, "this session is another visitor's; load the page anew")
        self._sessions.move_to_end(session)
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def _count(self, visitor: str) -> None:
        """Events of a visitor, so that none can drown the others."""
        times = self._events.setdefault(visitor, collections.deque(maxlen=EVENTS))
        self._events.move_to_end(visitor)
        while len(self._events) > SESSIONS:
            self._events.popitem(last=False)
        now = time.monotonic()
        if len(times) == EVENTS and now - times[0] < WINDOW:
            raise Refused(429, "too many requests at once; wait a few seconds")
        times.append(now)

    # -- Answers ---------------------------------------------------------------------------------------

    async def _page(self, request: "_Asked", _: Any) -> None:
        """The page itself, by which a visitor gets the cookie; without parameters, of which Gradio reads some."""
        if not request.visitor:
            request.set_visitor(visitors.new())
        request.scope["query_string"] = b""
        await self._pass(request)

    async def _file(self, request: "_Asked", found: re.Match[str]) -> None:
        """A file of the visitor's own folder, or a picture that ships."""
        path = found["path"]
        if not self._may_read(request.visitor, path):
            raise Refused(404, "there is no such file")
        shown = Path(path).suffix.lower() in STILL
        kind = "inline" if shown else "attachment"
        name = Path(path).name
        media = None if shown else "application/octet-stream"
        answer = FileResponse(path, filename=name, content_disposition_type=kind, media_type=media)
        # Names of files are never used again, and nobody else may keep a copy.
        answer.headers["cache-control"] = "private, max-age=3600"
        await request.respond(answer)

    def _may_read(self, visitor: str, path: str) -> bool:
        if not Path(path).is_absolute() or path != str(Path(path)) or ".." in Path(path).parts:
            return False
        if visitors.owns(self.site.results, visitor, path):
            return True
        shown = Path(path).suffix.lower() in STILL
        return shown and any(visitors.within(folder, path) for folder in self.shown)

    async def _upload(self, request: "_Asked", _: Any) -> None:
        """Keeps an image in the visitor's folder, once it has been decoded."""
        self._count(request.visitor)
        demo = self.site.settings.demo
        most = int(uploads.MOST * demo.upload_megabytes * 1e6)
        sentence = (
            f"the files are larger than {demo.upload_megabytes:g} MB each; save them smaller, or send "
            f"{uploads.MOST} at a time"
        )
        receive = request.limited(most + FORM_BYTES, sentence)
        try:
            kept = await uploads.keep(
                receive, request.header("content-type"), self.site, request.visitor
            )
        except UserError as error:
            raise Refused(400, str(error)) from error
        self.site.jobs.grown(sum(path.stat().st_size for path in kept))
        await request.respond(_json([str(path) for path in kept]))

    async def _upload_progress(self, request: "_Asked", _: Any) -> None:
        """Gradio's pages ask how far an upload is; it is small."""

        async def done():
            yield 'data: {"msg": "done"}\n\n'

        await request.respond(StreamingResponse(done(), media_type="text/event-stream"))

    async def _join(self, request: "_Asked", _: Any) -> None:
        """An event of the page, of which only what is known is passed on."""
        self._count(request.visitor)
        given = await request.json()
        session = self._claim(given.get("session_hash"), request.visitor)
        number, data = given.get("fn_index"), given.get("data")
        if type(number) is not int or number not in self.functions:
            raise Refused(400, "there is no such event; load the page anew")
        if not isinstance(data, list) or len(data) != self.functions[number]:
            raise Refused(
                400, f"expected {self.functions[number]} values in data; load the page anew"
            )
        event, trigger = given.get("event_data"), given.get("trigger_id")
        known = {
            "session_hash": session,
            "fn_index": number,
            "data": [self._own(x, request.visitor) for x in data],
            "event_data": self._own(event, request.visitor),
            "trigger_id": trigger if type(trigger) is int else None,
        }
        await self._pass(request, json.dumps(known).encode())

    def _own(self, value: Any, visitor: str) -> Any:
        """A value of a component, whose files are the visitor's own and known by their path alone."""
        if isinstance(value, list):
            return [self._own(x, visitor) for x in value]
        if not isinstance(value, dict):
            return value
        if "path" not in value and "url" not in value:
            return {key: self._own(x, visitor) for key, x in value.items()}
        path = value.get("path")
        if not isinstance(path, str) or not self._may_read(visitor, path):
            raise Refused(403, "a file that was given is not yours, or is gone; upload it again")
        return {
            "path": path,
            "url": None,
            "orig_name": Path(path).name,
            "meta": {"_type": "gradio.FileData"},
        }

    async def _session(self, request: "_Asked", found: re.Match[str]) -> None:
        """A stream of what happens in a session, for the visitor whose it is."""
        named = found.groupdict().get("session")
        if named is None:
            named = request.query("session_hash")
        session = self._claim(named, request.visitor)
        if not found.groupdict():
            request.scope["query_string"] = f"session_hash={session}".encode()
        await self._pass(request)

    async def _ending(self, request: "_Asked", _: Any) -> None:
        """The end of an event, as the page asks for where it is closed."""
        given = await request.json()
        event, number = given.get("event_id"), given.get("fn_index")
        if not isinstance(event, str) or not SESSION.fullmatch(event):
            raise Refused(400, "expected the event_id of an event")
        known: dict[str, Any] = {"event_id": event}
        if "cancel" in request.path:
            if type(number) is not int or number not in self.functions:
                raise Refused(400, "there is no such event; load the page anew")
            session = self._claim(given.get("session_hash"), request.visitor)
            known |= {"session_hash": session, "fn_index": number}
        await self._pass(request, json.dumps(known).encode())

    async def _pass(self, request: "_Asked", body: bytes = b"") -> None:
        """Hands the request to Gradio, with this body."""
        kept = [
            (key, value)
            for key, value in request.scope["headers"]
            # By the first, Gradio would believe any name of the server; the others are those of the body that was read.
            if key not in (b"x-forwarded-host", b"content-length", b"content-type")
            and key != b"transfer-encoding"
        ]
        if body:
            kept += [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ]
        request.scope["headers"] = kept
        await self.app(request.scope, request.replay(body), request.send)


WRONG = "something went wrong; the log of the server says what"


class _Asked:
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
            value = json.loads(body, parse_constant=_no_number)
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


def _check_origin(request: _Asked) -> None:
    """Only this page may change anything: browsers say which page asks."""
    origin, site = request.header("origin"), request.header("sec-fetch-site")
    host = request.header("host")
    foreign = origin and origin.lower().partition("://")[2] != host.lower()
    if foreign or site not in ("", "same-origin", "none"):
        raise Refused(403, "another page sent this; use the page of this server")


def _json(value: Any) -> Response:
    return Response(json.dumps(value), media_type="application/json")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
