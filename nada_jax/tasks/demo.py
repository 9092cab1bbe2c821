"""Opens a web page on which all of this can be tried with a mouse."""

import importlib.util
import os
import signal
from pathlib import Path

from ml_collections import ConfigDict

from nada_jax.demo.settings import Settings
from nada_jax.errors import UserError
from nada_jax.runs import signals
from nada_jax.runs.workdir import Run

RESULTS = ("results",)


def run(config: ConfigDict, workdir: Path) -> int:
    """Serves the page as configured until Ctrl-C or SIGTERM; see `configs/demo.py`.

    Writes config.json, and under results/ a folder of each visitor.

    Args:
      config: all of `configs/demo.py`.
      workdir: where the results go.

    Returns:
      The exit code: 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
      UserError: wrong input, or the address cannot be had.
    """
    settings = Settings.read(config)
    if importlib.util.find_spec("gradio") is None:
        raise UserError(
            "the page needs Gradio, which is not installed; `pip install -r requirements-demo.txt` adds it"
        )
    # Trainings are processes of their own, which share the device; JAX would take three quarters of a GPU at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from nada_jax.demo import server
    from nada_jax.demo.site import Site

    written = ConfigDict(config)
    written.demo = ConfigDict(config.demo)
    written.demo.auth = ""  # a password is not left in a file
    with Run(written, workdir, results=RESULTS) as run, server.listen(settings.demo) as taken:
        run.begin()
        site = Site(settings, workdir)
        site.models.source()  # wrong input shows now
        try:
            names = []
            if settings.demo.share:
                link = server.share(taken)
                names.append(link.partition("://")[2].partition("/")[0])
                print(f"public link: {link}")
            guard = server.make(site, names=names)
            print(f"the page: {server.address(taken)} (Ctrl-C ends it)", flush=True)
            received = server.serve(guard, taken)
        finally:
            site.jobs.close()
    return signals.EXIT + (received or signal.SIGINT)
