"""The server: Gradio's application behind the guard, on an address of this machine, until it is asked to end."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Sequence

import fastapi
import gradio as gr
import uvicorn

from nada_jax.demo import page
from nada_jax.demo.guard import Guard
from nada_jax.demo.settings import Demo
from nada_jax.demo.site import Site
from nada_jax.errors import UserError
from nada_jax.weights.registry import ASSETS

SHOWN = tuple(
    ASSETS / name for name in ("presets", "avatars", "contents", "styles")
)  # folders of pictures that all visitors may see
FOLLOWERS = 1000  # events at once: each open page holds one for every job that it follows
SMALL = 16  # events of one kind at once that are no followers: a list is filled, a field changes
CONNECTIONS = 2000
GRACE = 2  # seconds that open pages get at the end


def make(site: Site, tabs: Sequence[page.Tab] = page.TABS, names: Sequence[str] = ()) -> Guard:
    """The application of the page, guarded.

    Args:
      site: the page's common part.
      tabs: what it shows.
      names: host names beside those of `demo.names`.
    """
    # Where Gradio puts what it writes, so that nothing is left elsewhere; and nothing is told to its authors.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # of forms that are none
    warnings.filterwarnings("ignore", module="gradio")  # of names that Starlette deprecates
    os.environ["GRADIO_TEMP_DIR"] = str(site.results)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    shown = [folder for folder in SHOWN if folder.is_dir()]
    # Files of these folders are sent from where they stand; all others are copied, where no visitor may read them.
    gr.set_static_paths([site.results, *shown])
    demo = page.build(site, tabs)
    demo.max_threads = FOLLOWERS  # which queue() reads
    demo.queue(max_size=FOLLOWERS, api_open=False, default_concurrency_limit=SMALL)
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        demo,
        path="",
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=page.theme(),
        css=page.CSS,
    )
    functions = {number: len(function.inputs) for number, function in demo.fns.items()}
    return Guard(
        app, site, functions, SHOWN, (*site.settings.demo.names, site.settings.demo.host, *names)
    )


def listen(demo: Demo) -> socket.socket:
    """A socket on the page's address; UserError where it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            demo.host, demo.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"demo.host is {demo.host!r}, which is no address; expected one of this machine, such as 127.0.0.1"
        ) from error
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(address)
        taken.listen(CONNECTIONS)  # who asks from now on waits for the server to begin
    except OSError as error:
        taken.close()
        raise UserError(
            f"the page cannot have {demo.host}:{demo.port} ({error.strerror or error}); expected a free address: give "
            "another --config.demo.port, such as 0 for any, or --config.demo.host"
        ) from error
    return taken


def address(taken: socket.socket) -> str:
    """How a browser on this machine asks for the page."""
    host, port = taken.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Uvicorn's, which ends at the first SIGINT or SIGTERM and leaves the exit code to its caller."""

    received = 0

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn's own would raise the signal again at the end, past what is still to be closed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {x: signal.signal(x, self._end) for x in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _end(self, number: int, _) -> None:
        self.force_exit = bool(self.received)  # the second time
        # Pages that are open have streams, whose end is no fault.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.received, self.should_exit = number, True


def serve(guard: Guard, taken: socket.socket) -> int:
    """Answers on a socket until a signal comes; returns its number."""
    server = prepare(guard)
    asyncio.run(server.serve(sockets=[taken]))
    return server.received


def prepare(guard: Guard) -> Server:
    """A server that has not begun."""
    config = uvicorn.Config(
        guard,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        # Only a proxy on this machine may say that it speaks https.
        proxy_headers=True,
        forwarded_allow_ips="127.0.0.1,::1",
    )
    return Server(config)


def share(taken: socket.socket) -> str:
    """A public link to the page through Gradio's servers; UserError where there is none to be had."""
    import secrets

    from gradio import networking

    try:
        return networking.setup_tunnel(
            "127.0.0.1", taken.getsockname()[1], secrets.token_urlsafe(32), None, None
        )
    except Exception as error:
        raise UserError(
            f"demo.share is True, and no public link can be had ({error}); expected a connection to gradio.live"
        ) from error
