"""The page, served within the process of the tests."""

import asyncio
import contextlib
import functools
import http.client
import importlib.util
import io
import json
import os
import secrets
import threading
import time
from types import SimpleNamespace

import pytest
from PIL import Image

from configs import demo as demo_config
from nada_jax.demo.settings import Settings

if importlib.util.find_spec("gradio") is None:
    collect_ignore_glob = ["test_*.py"]  # requirements-demo.txt is not installed


@pytest.fixture(scope="session")
def demo_settings(tiny_file, tiny_clip):
    """demo_settings({"demo.jobs": 2}) -> the settings of a page over a tiny generator."""
    base = {
        "generator.weights": str(tiny_file), "encoder.weights": "", "lpips.weights": "", "judge": "",
        "clip.models": (str(tiny_clip),),
        "demo.port": 0, "demo.upload_megabytes": 1.0, "demo.pixels": 1_000_000,
    }  # fmt: skip

    def make(fields=()):
        config = demo_config.get_config()
        config.update_from_flattened_dict(base | dict(fields))
        return Settings.read(config)

    return make


@pytest.fixture(scope="session")
def serve():
    """serve(site, tabs) -> its address, guard and server, in a thread; ended with the tests."""
    from nada_jax.demo import page, server

    running = []

    def start(site, tabs=page.TABS):
        guard = server.make(site, tabs)
        taken = server.listen(site.settings.demo)
        it = server.prepare(guard)
        thread = threading.Thread(
            target=lambda: asyncio.run(it.serve(sockets=[taken])), daemon=True
        )
        thread.start()
        running.append((it, thread, site))
        while not it.started:
            assert thread.is_alive()
            time.sleep(0.01)
        return SimpleNamespace(url=server.address(taken), site=site, guard=guard, server=it)

    yield start
    for it, thread, site in running:
        it.should_exit = True
        site.jobs.close(5)
        thread.join(10)


@pytest.fixture(scope="session")
def page(demo_settings, serve, tmp_path_factory):
    """The page over a tiny generator: `url`, `site`, `guard`."""
    from nada_jax.demo.page import TABS
    from nada_jax.demo.site import Site

    before = {
        name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")
    }
    yield serve(Site(demo_settings(), tmp_path_factory.mktemp("page")), TABS)
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class Browser:
    """What a browser does, by plain requests: `ask` returns status, headers and text; `send` starts an event."""

    def __init__(self, url, cookie=None):
        self.host = url.partition("://")[2]
        self.session = secrets.token_hex(6)
        self.cookie = cookie
        if cookie is None:
            _, headers, self.page = self.ask("GET", "/")
            self.cookie = headers["set-cookie"].partition(";")[0]
        self.visitor = self.cookie.partition("=")[2]

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.host, timeout=20)
        headers = {key.replace("_", "-"): value for key, value in headers.items()}
        if self.cookie:
            headers = {"cookie": self.cookie} | headers
        if isinstance(body, dict | list):
            body, headers["content-type"] = json.dumps(body), "application/json"
        connection.putrequest(method, path, skip_host="host" in headers)
        if isinstance(body, str):
            body = body.encode("utf-8", "surrogatepass")
        if body is not None and "transfer-encoding" not in headers:
            headers.setdefault("content-length", str(len(body)))
        for key, value in headers.items():
            connection.putheader(key, value)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before its end
            connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, text

    def upload(self, content, name="x.png", path="/gradio_api/upload"):
        form = (
            (
                f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
                "Content-Type: image/png\r\n\r\n"
            ).encode()
            + content
            + b"\r\n--edge--\r\n"
        )
        return self.ask("POST", path, form, content_type="multipart/form-data; boundary=edge")

    def join(self, number, data, **fields):
        body = {"session_hash": self.session, "fn_index": number, "data": data} | fields
        return self.ask("POST", "/gradio_api/queue/join", body)

    def events(self):
        """The messages of the session until all of its events have ended."""
        _, _, text = self.ask("GET", f"/gradio_api/queue/data?session_hash={self.session}")
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


@pytest.fixture(scope="session")
def browse(page):
    """browse() -> a new visitor of the page."""
    return functools.partial(Browser, page.url)


@pytest.fixture(scope="session")
def png():
    """png(width, height) -> the bytes of an image."""

    def make(width=8, height=8, kind="PNG"):
        file = io.BytesIO()
        Image.new("RGB", (width, height), "red").save(file, kind)
        return file.getvalue()

    return make
