"""The page, served within the process of the tests."""

import asyncio
import importlib.util
import os
import threading
import time
from types import SimpleNamespace

import pytest

from configs import demo as demo_config
from nada_jax.demo.settings import Settings

if importlib.util.find_spec("gradio") is None:
    collect_ignore_glob = ["test_*.py"]  # requirements-demo.txt is not installed


@pytest.fixture(scope="session")
def demo_settings(tiny_file):
    """demo_settings({"demo.jobs": 2}) -> the settings of a page over a tiny generator."""
    base = {
        "generator.weights": str(tiny_file), "encoder.weights": "", "lpips.weights": "", "judge": "",
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
        it.should_exit = it.force_exit = True
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
