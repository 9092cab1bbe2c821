"""The layer in front of Gradio: lets through what the page needs, and nothing else.

Gradio 6.17 serves more than this page uses, and some of it has faults that later releases mended: `/file=` with an
address redirects or fetches, `/proxy=` fetches, files of one visitor can be read by another who knows their path. So
routes are an allow-list, files and uploads are answered here, and what a browser sends to Gradio's queue is made anew
from the few fields that are known.
"""

import asyncio
import base64
import collections
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nada_jax.demo import uploads, visitors
from nada_jax.demo.asked import WRONG, Asked, Refused, check_host, check_origin
from nada_jax.demo.routes import ROUTES, Route
from nada_jax.demo.site import Site
from nada_jax.errors import UserError

LOG = logging.getLogger(__name__)
FORM_BYTES = 100_000  # of a multipart body beside its file
SESSIONS = 10_000  # pages of all visitors that are known at once
EVENTS, WINDOW = 200, 10.0  # that one visitor may send within so many seconds
DENIED = 1.0  # seconds before a wrong password is answered, which slows down who tries many
SESSION = re.compile(r"[0-9a-zA-Z_-]{1,64}")  # Gradio's name of one loaded page
STILL = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4")  # shown in the page; others are saved


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
        request = Asked(scope, receive, send)
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

    async def _answer(self, request: Asked) -> None:
        check_host(request, self.names)
        await self._check_password(request)
        route, found = self._route(request)
        if request.method == "POST":
            check_origin(request)
        request.visitor = visitors.from_cookies(request.header("cookie"))
        if route.known and not request.visitor:
            raise Refused(403, "this page needs its cookie; allow cookies, and load the page anew")
        if route.answer:
            await getattr(self, f"_{route.answer}")(request, found)
        else:
            await self._pass(request)

    # -- Who asks, and for what ------------------------------------------------------------------------

    async def _check_password(self, request: Asked) -> None:
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

    def _route(self, request: Asked) -> tuple[Route, re.Match[str]]:
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

    async def _page(self, request: Asked, _: Any) -> None:
        """The page itself, by which a visitor gets the cookie; without parameters, of which Gradio reads some."""
        if not request.visitor:
            request.set_visitor(visitors.new())
        request.scope["query_string"] = b""
        await self._pass(request)

    async def _file(self, request: Asked, found: re.Match[str]) -> None:
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

    async def _upload(self, request: Asked, _: Any) -> None:
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

    async def _upload_progress(self, request: Asked, _: Any) -> None:
        """Gradio's pages ask how far an upload is; it is small."""

        async def done():
            yield 'data: {"msg": "done"}\n\n'

        await request.respond(StreamingResponse(done(), media_type="text/event-stream"))

    async def _join(self, request: Asked, _: Any) -> None:
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

    async def _session(self, request: Asked, found: re.Match[str]) -> None:
        """A stream of what happens in a session, for the visitor whose it is."""
        named = found.groupdict().get("session")
        if named is None:
            named = request.query("session_hash")
        session = self._claim(named, request.visitor)
        if not found.groupdict():
            request.scope["query_string"] = f"session_hash={session}".encode()
        await self._pass(request)

    async def _ending(self, request: Asked, _: Any) -> None:
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

    async def _pass(self, request: Asked, body: bytes = b"") -> None:
        """Hands the request to Gradio, with this body."""
        kept = [
            (key, value)
            for key, value in request.scope["headers"]
            # By the first two, Gradio would believe any name of the server; the others are those of the body that was read.
            if key not in (b"x-forwarded-host", b"x-gradio-server", b"content-length")
            and key not in (b"content-type", b"transfer-encoding")
        ]
        if body:
            kept += [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ]
        request.scope["headers"] = kept
        await self.app(request.scope, request.replay(body), request.send)


def _json(value: Any) -> Response:
    return Response(json.dumps(value), media_type="application/json")
