"""Nonsense for every route and every event of the running page: no fault, no file outside, nothing written outside."""

import json
import os
import random
import re
import secrets
import time

import pytest

from nada_jax.demo import training

METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")
SECONDS = 4  # at most, whatever there is still to try
VALUES = (
    None, True, -1, 0, 1e308, 2**70, "", "x", "\0", "../../etc/passwd", "/etc/passwd", "\ud800", "http://127.0.0.1:1/", "=1+1",
    "<script>alert(1)</script>", "{{7*7}}", "${7*7}", "%s%n", "x" * 5000, [], [[]], {}, {"path": None}, {"path": "/etc/passwd"},
    {"path": "x", "meta": {"_type": "gradio.FileData"}}, {"url": "http://127.0.0.1:1/"}, {"__type__": "update", "value": 1},
    [{"image": {"path": "x"}}], [["x", 1]], {"a": {"b": [{"path": 3}]}},
)  # fmt: skip


def paths_of(app):
    """The paths of all routes of Gradio, whatever they take left as a place to fill."""
    for route in app.routes:
        if hasattr(route, "path"):
            yield route.path
        # A mounted application, or routes that FastAPI includes.
        for within in (getattr(route, "app", None), getattr(route, "original_router", None)):
            if hasattr(within, "routes"):
                yield from paths_of(within)


def fill(path, words, chance):
    return re.sub(r"\{[^}]*\}", lambda _: chance.choice(words), path)


@pytest.fixture
def folder(page):
    """The workdir, beside which a file stands that nobody may see."""
    secret = page.site.workdir.parent / "secret.txt"
    secret.write_text(secrets.token_hex(16))
    yield page.site.workdir.parent, secret
    secret.unlink()


def test_nonsense(page, browse, folder, png, monkeypatch):
    outside, secret = folder
    monkeypatch.setattr(training, "recipe", None)  # nothing could start a run
    chance, one, other = random.Random(0), browse(), browse()
    theirs = json.loads(other.upload(png())[2])[0]
    before = {x for x in outside.rglob("*") if not x.is_relative_to(page.site.results)}
    here = set(os.listdir())
    words = (
        str(secret), f"..%2f..%2f{secret.name}", theirs, f"/proc/self/cwd{secret}", "%00", "%ff", "x", "", "..", "%252e%252e%252f",
        "http://127.0.0.1:1/x", str(page.site.workdir / "config.json"), "a" * 3000, one.session, "\\..\\x", "%0d%0aSet-Cookie:a=b",
    )  # fmt: skip
    answers = []

    def keep(answer):
        status, headers, text = answer
        assert status < 500, text
        assert secret.read_text() not in text and "Traceback" not in text and "root:" not in text
        assert not headers.get("location") and "a=b" not in headers.get("set-cookie", "")
        answers.append(status)

    paths = sorted(set(paths_of(page.guard.app)))
    assert len(paths) > 50 and "/gradio_api/file={path_or_url:path}" in paths
    end = time.monotonic() + SECONDS
    # Every route by two ways, then every event, then what is left of the time.
    for path in paths:
        for method in ("GET", "POST"):
            body = json.dumps(chance.choice(VALUES)) if method == "POST" else None
            target = fill(path, words, chance) + chance.choice(
                ("", "?session_hash=x", "?path=/etc/passwd")
            )
            if "heartbeat" not in target and "queue/data" not in target:  # which never end
                keep(one.ask(method, target, body))
    numbers = list(page.guard.functions)
    for number in (*numbers, *numbers, -1, 10**9, None, "0", 1.5, [], True):
        count = page.guard.functions.get(number, 3) if type(number) is int else 3
        for length in (count, count + 1):
            data = [chance.choice(VALUES) for _ in range(length)]
            extra = {
                "event_data": chance.choice(VALUES),
                "trigger_id": chance.choice(VALUES),
                "request": 1,
            }
            keep(one.join(number, data, **extra))
    keep(one.ask("GET", f"/gradio_api/queue/data?session_hash={one.session}"))
    while time.monotonic() < end:
        kind = chance.randrange(4)
        if kind == 0:
            target = fill(f"/gradio_api/file={chance.choice(words)}", words, chance)
            keep(one.ask(chance.choice(METHODS), target))
        elif kind == 1:
            body = bytes(chance.randrange(256) for _ in range(chance.randrange(200)))
            name = chance.choice(words).replace('"', "")
            keep(one.upload(chance.choice((body, png()[: chance.randrange(80)])), name))
        elif kind == 2:
            body = json.dumps({"session_hash": one.session, "fn_index": 0, "data": []}).encode()
            at = chance.randrange(len(body))
            keep(one.ask("POST", "/gradio_api/queue/join", body[:at] + b"\xff[{" + body[at + 1 :]))
        else:
            route = chance.choice(("cancel", "reset", "upload", "queue/join"))
            keep(one.ask("POST", f"/gradio_api/{route}", json.dumps(chance.choice(VALUES))))
        if len(answers) % 150 == 0:  # the bound on events is tried elsewhere
            page.guard._events.clear()
    assert len(answers) > 200
    after = {x for x in outside.rglob("*") if not x.is_relative_to(page.site.results)}
    assert after == before and set(os.listdir()) == here
    assert {x.name for x in (page.site.results / one.visitor).glob("*")} <= {
        x.name for x in (page.site.results / one.visitor).glob("upload-*")
    }
    assert other.ask("GET", f"/gradio_api/file={theirs}")[0] == 200
