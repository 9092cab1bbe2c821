"""The guard, against the running page: what is let through, whose files, and what answers look like."""

import asyncio
import base64
import json
import pickle
import socket

import pytest

from nada_jax.demo import visitors
from nada_jax.demo.guard import Guard
from nada_jax.errors import UserError
from nada_jax.weights.registry import ASSETS

REFUSED = (
    # Redirects and requests to addresses of others (mended in Gradio 6.20).
    ("GET", "/gradio_api/file=https://example.com/"),
    ("GET", "/gradio_api/file=//example.com/"),
    ("GET", "/gradio_api/file=http://127.0.0.1:1/x"),
    ("HEAD", "/gradio_api/file=https:/example.com/"),
    ("GET", "/gradio_api/file=file:///etc/passwd"),
    ("GET", "/gradio_api/proxy=https://example.hf.space/x"),
    ("GET", "/gradio_api/file/etc/passwd"),
    ("GET", "/file=/etc/passwd"),
    # Absolute paths and those that climb (6.7), also within what Gradio serves itself.
    ("GET", "/gradio_api/file=/etc/passwd"),
    ("GET", "/gradio_api/file=/proc/self/environ"),
    ("GET", "/gradio_api/file=main.py"),
    ("GET", "/gradio_api/file=../../../../etc/passwd"),
    ("GET", "/gradio_api/file=C:\\Windows\\win.ini"),
    ("GET", "/gradio_api/file=/etc/passwd%00.png"),
    ("GET", f"/gradio_api/file=/{'a' * 3000}.png"),
    ("GET", f"/gradio_api/file={ASSETS}/presets/{'a' * 3000}.png"),
    ("GET", "/assets/../../../__init__.py"),
    ("GET", "/static/..%2f..%2f..%2f__init__.py"),
    ("GET", "/assets//etc/passwd"),
    ("GET", "/svelte/..\\..\\x"),
    # The file explorer (6.16) and all else that components do on the server.
    ("POST", "/gradio_api/component_server"),
    ("POST", "/gradio_api/component_server/"),
    ("GET", "/gradio_api/custom_component/x/client/component/index.js"),
    # What nothing on this page needs.
    ("GET", "/monitoring"), ("GET", "/monitoring/summary"), ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/openapi.json"), ("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json"),
    ("POST", "/gradio_api/run/predict"), ("POST", "/gradio_api/api/predict"), ("POST", "/gradio_api/call/x"),
    ("GET", "/gradio_api/call/x/y"), ("GET", "/gradio_api/deep_link?session_hash=x"),
    ("GET", "/gradio_api/dev/reload"), ("GET", "/gradio_api/vibe-code"), ("POST", "/gradio_api/vibe-edit"),
    ("POST", "/gradio_api/process_recording"), ("POST", "/gradio_api/stream/x"), ("GET", "/gradio_api/token"),
    ("GET", "/gradio_api/startup-events"), ("GET", "/gradio_api/user"),
    ("POST", "/login"), ("GET", "/logout"), ("GET", "/pwa_icon"), ("GET", "/gradio_api/mcp"),
    ("PUT", "/"), ("DELETE", "/"), ("OPTIONS", "/"), ("POST", "/"), ("GET", "/gradio_api/queue/join"),
    ("TRACE", "/"), ("GET", "/gradio_api/upload"),
)  # fmt: skip


@pytest.fixture(scope="module")
def ann(browse):
    return browse()


@pytest.fixture(scope="module")
def bob(browse):
    return browse()


@pytest.fixture(scope="module")
def red(ann, png):
    """The path of an image that Ann has uploaded."""
    status, _, text = ann.upload(png())
    assert status == 200
    return json.loads(text)[0]


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_what_the_page_does_not_need_is_refused(ann, method, path):
    status, headers, text = ann.ask(method, path, "" if method == "POST" else None)
    assert status in (404, 405)
    assert "location" not in headers and "root:" not in text and "<html" not in text
    assert len(text.splitlines()) <= 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:7860"}, 421),
        ({"host": "localhost:99"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "127.0.0.1:x"}, 421),
        ({"host": ""}, 421),
    ],
)
def test_a_name_that_the_page_was_not_given_is_refused(ann, headers, status):
    assert ann.ask("GET", "/", **headers)[0] == status


def test_only_the_page_itself_may_send_anything(ann):
    path, body = "/gradio_api/queue/join", {}
    for headers in (
        {"origin": "https://evil.example"},
        {"sec_fetch_site": "cross-site"},
        {"origin": "null"},
    ):
        assert ann.ask("POST", path, body, **headers)[0] == 403
    status, _, text = ann.ask("POST", path, body, origin=f"http://{ann.host}")
    assert status == 400 and "session" in text


def test_answers_bear_what_browsers_obey(browse):
    new = browse(cookie="")
    _, headers, text = new.ask("GET", "/?deep_link=../../x")
    cookie = headers["set-cookie"]
    assert visitors.FORM.fullmatch(cookie.partition("=")[2].partition(";")[0])
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe-eval" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and "server" not in headers
    assert "set-cookie" not in new.ask("GET", "/", cookie=cookie)[1]
    assert "set-cookie" in new.ask("GET", "/", cookie=f"{visitors.COOKIE}=../../etc")[1]
    for path in ("/gradio_api/file=/x", "/gradio_api/queue/data?session_hash=x"):
        status, _, text = new.ask("GET", path)
        assert status == 403 and "cookie" in text
    # Nothing of the page asks another server for anything.
    assert '"analytics_enabled":false' in new.ask("GET", "/")[2].replace(" ", "")


# -- Files ---------------------------------------------------------------------------------------------


def test_files_are_those_of_their_visitor(page, ann, bob, red, tmp_path):
    assert red.startswith(str(page.site.results / ann.visitor))
    status, headers, _ = ann.ask("GET", f"/gradio_api/file={red}")
    assert status == 200 and headers["content-type"] == "image/png"
    assert headers["cache-control"].startswith("private")
    assert bob.ask("GET", f"/gradio_api/file={red}")[0] == 404
    climbing = f"{page.site.results}/{bob.visitor}/../{ann.visitor}/{'/'.join(red.split('/')[-2:])}"
    assert bob.ask("GET", f"/gradio_api/file={climbing}")[0] == 404
    own = page.site.results / bob.visitor / "job"
    own.mkdir(parents=True)
    (own / "link.png").symlink_to(red)
    (own / "page.html").write_text("<script>alert(1)</script>")
    assert bob.ask("GET", f"/gradio_api/file={own}/link.png")[0] == 404
    assert bob.ask("GET", f"/gradio_api/file={own}")[0] == 404
    _, headers, _ = bob.ask("GET", f"/gradio_api/file={own}/page.html")
    assert headers["content-disposition"].startswith("attachment")
    assert headers["content-type"] == "application/octet-stream"


def test_pictures_of_presets_are_everybodys_and_nothing_else_there(page, ann, tmp_path):
    page.guard.shown, before = (tmp_path,), page.guard.shown
    try:
        for name, status in (("a.png", 200), ("a.safetensors", 404)):
            (tmp_path / name).write_bytes(b"x")
            assert ann.ask("GET", f"/gradio_api/file={tmp_path / name}")[0] == status
        assert ann.ask("GET", f"/gradio_api/file={tmp_path}/{'a' * 3000}.png")[0] == 404
    finally:
        page.guard.shown = before
    assert ann.ask("GET", f"/gradio_api/file={ASSETS / 'avatar64.safetensors'}")[0] == 404


def test_events_take_files_of_their_visitor_alone_and_no_addresses(page, ann, bob, red):
    number = next(x for x, inputs in page.guard.functions.items() if inputs > 1)
    count = page.guard.functions[number]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/x.png"
        for given in (
            {"path": red},
            {"path": address, "url": address},
            {"url": address},
            {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
            [{"image": {"path": red, "url": None}, "caption": None}],
            {"deep": [{"path": ["x"]}]},
        ):
            status, _, text = bob.join(number, [None, None, given, *[None] * (count - 3)])
            assert status == 403 and "not yours" in text
        # An address beside a path of one's own is dropped.
        given = [{"image": {"path": red, "url": address}, "caption": None}]
        assert ann.join(number, [None, None, given, *[None] * (count - 3)])[0] == 200
        ann.events()
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_session_is_that_of_its_visitor(page, ann, bob):
    number = next(x for x, inputs in page.guard.functions.items() if inputs == 0)
    assert ann.join(number, [])[0] == 200
    stolen = f"session_hash={ann.session}"
    assert bob.ask("GET", f"/gradio_api/queue/data?{stolen}")[0] == 403
    assert bob.ask("GET", f"/gradio_api/heartbeat/{ann.session}")[0] == 403
    assert bob.join(number, [], session_hash=ann.session)[0] == 403
    cancel = {"session_hash": ann.session, "fn_index": number, "event_id": "x"}
    assert bob.ask("POST", "/gradio_api/cancel", cancel)[0] == 403
    assert all(x.get("success", True) for x in ann.events())


# -- Uploads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        (b"", "x.png", "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "x.png", "no image of a kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "x.svg", "no image of a kind"),
        (pickle.dumps({"weights": 1}), "x.png", "no image of a kind"),
        (b"PK\x03\x04" + b"0" * 99, "generator.pt", "no image of a kind"),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 99, "x.png", "x.png"),
    ],
)  # fmt: skip
def test_an_upload_is_an_image_by_its_content(page, ann, content, name, told):
    before = set((page.site.results / ann.visitor).rglob("*"))
    status, _, text = ann.upload(content, name)
    assert status == 400 and told in text and str(page.site.results) not in text
    assert set((page.site.results / ann.visitor).rglob("*")) == before


def test_uploads_are_bounded_and_named_by_this_server(page, ann, png):
    status, _, text = ann.upload(png(1200, 1000))
    assert status == 400 and "1200 x 1000 pixels" in text and "1,000,000" in text
    assert ann.upload(png() + bytes(1_100_000))[0] == 400  # above demo.upload_megabytes
    status, _, text = ann.upload(bytes(9_000_000))
    assert status == 413 and "1 MB each" in text
    begun = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
    endless = ("POST", "/gradio_api/upload", b"ffffffff\r\n" + begun + bytes(8_200_000))
    kind = {"content_type": "multipart/form-data; boundary=edge", "transfer-encoding": "chunked"}
    assert ann.ask(*endless, **kind)[0] == 413
    assert ann.ask("POST", "/gradio_api/queue/join", " " * 1_100_000)[0] == 413
    for name in (
        "../../../x.png",
        "..\\..\\x.png",
        "/etc/x.png",
        "x.png/../../y",
        "ü" * 300 + ".exe",
    ):
        status, _, text = ann.upload(png(kind="JPEG"), name)
        (path,) = json.loads(text)
        assert status == 200 and path.endswith(".jpg")
        assert visitors.owns(page.site.results, ann.visitor, path)
    for kind in ("text/plain", "multipart/form-data", "multipart/form-data; boundary="):
        assert ann.ask("POST", "/gradio_api/upload", b"x", content_type=kind)[0] == 400


# -- Faults and passwords ------------------------------------------------------------------------------


def call(guard, path="/", method="GET", body=b"", **headers):
    """Asks a guard without a server: status, headers and text."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    headers = {"host": "localhost"} | headers
    raw = [(key.encode(), value.encode()) for key, value in headers.items()]
    scope = {
        "type": "http", "method": method, "path": path, "headers": raw, "query_string": b"", "scheme": "http",
    }  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    text = b"".join(x.get("body", b"") for x in sent[1:]).decode()
    return sent[0]["status"], dict(sent[0]["headers"]), text


def test_a_fault_is_a_sentence(page, caplog):
    async def faulty(scope, receive, send):
        if scope["path"] == "/":
            raise RuntimeError("secret")
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"secret", "more_body": True})
        await send({"type": "http.response.body", "body": b"trace"})

    guard = Guard(faulty, page.site, {})
    for path in ("/", "/config"):
        status, _, text = call(guard, path)
        assert (status, text) == (500, "something went wrong; the log of the server says what\n")
    assert "secret" in caplog.text


def test_a_password_is_asked_for_everywhere(page, demo_settings, monkeypatch):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    guard = Guard(app, page.site, {})
    guard._password = "me:secret"
    monkeypatch.setattr("nada_jax.demo.guard.DENIED", 0)

    def by(pair):
        return {"authorization": "Basic " + base64.b64encode(pair).decode()}

    for path in ("/", "/assets/x.js", "/config", "/gradio_api/file=/x"):
        status, headers, text = call(guard, path)
        assert status == 401 and b"www-authenticate" in headers and "page" not in text.split()[0]
    for wrong in (
        by(b"me:other"),
        by(b"me"),
        {"authorization": "Basic ="},
        {"authorization": "Bearer x"},
    ):
        assert call(guard, **wrong)[0] == 401
    assert call(guard, **by(b"me:secret"))[2] == "page"


def test_too_many_events_at_once_are_refused(page, monkeypatch):
    monkeypatch.setattr("nada_jax.demo.guard.EVENTS", 3)
    guard = Guard(page.guard.app, page.site, {})
    cookie = f"{visitors.COOKIE}={'d' * 32}"
    statuses = [
        call(guard, "/gradio_api/queue/join", "POST", b"{}", cookie=cookie)[0] for _ in range(5)
    ]
    assert statuses == [400, 400, 400, 429, 429]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"demo.host": "0.0.0.0"},
            "demo.host is '0.0.0.0'; expected 127.0.0.1, or --config.demo.auth",
        ),
        ({"demo.share": True}, "demo.share is True; expected False, or --config.demo.auth"),
        ({"demo.auth": "secret"}, "demo.auth has no colon"),
        ({"demo.port": 70000}, "demo.port is 70000; expected a port"),
    ],
)
def test_the_page_is_not_exposed_by_accident(demo_settings, fields, told):
    with pytest.raises(UserError) as caught:
        demo_settings(fields)
    assert told in str(caught.value) and "'secret'" not in str(caught.value)


def test_the_page_is_exposed_on_purpose(demo_settings):
    assert demo_settings({"demo.host": "0.0.0.0", "demo.auth": "me:secret"}).demo.auth
    assert demo_settings({"demo.host": "0.0.0.0", "demo.open": True, "demo.share": True}).demo.share


def test_an_address_that_cannot_be_had_is_a_sentence(demo_settings):
    from nada_jax.demo import server

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"cannot have 127.0.0.1:{port} .*another --config.demo.port"
        ):
            server.listen(demo_settings({"demo.port": port}).demo)
    with pytest.raises(UserError, match="no address"):
        server.listen(demo_settings({"demo.host": "nowhere.invalid", "demo.open": True}).demo)
