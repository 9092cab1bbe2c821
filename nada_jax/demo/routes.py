"""What may be asked of the page: all that it needs of Gradio, and nothing else."""

from typing import NamedTuple

API = "/gradio_api"
NAME = r"[\w.@-]+"
PATHS = (
    r"(?!.*(?:^|/)\.\.?(?:/|$))" + rf"{NAME}(?:/{NAME})*"
)  # of Gradio's own scripts and pictures


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
