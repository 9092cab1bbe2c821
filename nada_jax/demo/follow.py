"""The one pattern of all tabs: a button begins a job, and the page follows the tab's latest job, also after a reload."""

import asyncio
import html
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import gradio as gr

from nada_jax.demo.job import CANCELLED, DONE, FAILED, RUNNING, WAITING, Job
from nada_jax.demo.site import Site
from nada_jax.demo.visitors import visitor
from nada_jax.errors import UserError

PAUSE = 0.25  # seconds between looks at a job
LOG = logging.getLogger(__name__)


def skip() -> dict[str, Any]:
    """An update that leaves a component as it is."""
    return gr.skip()


async def follow(
    site: Site, who: str, tab: str, show: Callable[[Job], Sequence[Any]]
) -> AsyncIterator[tuple[Job, tuple[Any, ...]]]:
    """Follows the latest job of a visitor in a tab until it ends; yields at once, and then where something changes.

    Args:
      site: the page's common part.
      who: the visitor.
      tab: of the page.
      show: a job -> what the tab's outputs show of it.

    Yields:
      The job, and what `show` makes of it; nothing where there is no job.
    """
    seen = None
    while (job := site.jobs.latest(who, tab)) is not None:
        if (now := (job.id, job.version)) != seen:
            seen, ended = now, job.ended
            yield job, tuple(show(job))
            if ended:
                return
        await asyncio.sleep(PAUSE)


def status(job: Job) -> str:
    """The line about a job, as HTML: its place, its progress, or why it failed."""
    title = html.escape(job.title)
    if job.state == WAITING:
        place = job.place
        text = f"{place} before it" if place else "it is next"
        return _line(f"{title}: waiting, {text}")
    if job.state == RUNNING:
        note = "stopping at its next step" if job.stopping else html.escape(job.note or "begins")
        bar = f'<progress max="1" value="{job.fraction:.3f}"></progress>'
        return _line(f"{bar} {title}: {note}")
    if job.state == CANCELLED:
        return _line(f"{title}: cancelled")
    if job.state == FAILED:
        return error(job.error)
    return _line(f"{title}: done in {job.seconds:.0f} s")


def error(sentence: str) -> str:
    """A sentence about what is wrong, as HTML."""
    return f'<p class="nada-error" role="alert">{html.escape(sentence)}</p>'


def _line(text: str) -> str:
    return f'<p class="nada-status" role="status">{text}</p>'


class Panel:
    """The button of a tab, beside it Cancel, and the line of status; made inside the tab.

    Args:
      site: the page's common part.
      tab: its name, which jobs bear too.
      label: of the button.

    Attributes:
      button, cancel: gr.Button.
      status: gr.Markdown.
    """

    def __init__(self, site: Site, tab: str, label: str):
        self.site, self.tab = site, tab
        with gr.Row():
            self.button = gr.Button(label, variant="primary", min_width=120, elem_id=f"{tab}-start")
            self.cancel = gr.Button(
                "Cancel", interactive=False, min_width=120, elem_id=f"{tab}-cancel"
            )
        # Not gr.HTML, whose templates are evaluated as code, which the guard's policy forbids.
        self.status = gr.Markdown("", elem_id=f"{tab}-status", container=False, latex_delimiters=[])

    def connect(
        self,
        demo: gr.Blocks,
        inputs: Sequence[Any],
        start: Callable[..., Job],
        outputs: Sequence[Any],
        show: Callable[[Job], Sequence[Any]],
    ) -> tuple[gr.events.Dependency, gr.events.Dependency]:
        """Wires the two buttons and the page's loading.

        Args:
          demo: the page.
          inputs: components whose values `start` gets after the visitor.
          start: (visitor, *values) -> the submitted job; is called in a thread. A UserError is shown in the status.
          outputs: components that `show` fills.
          show: job -> a value or update for each of `outputs`; is called at each change, so it must be quick.

        Returns:
          The events of the button and of the loading, whose `then` comes when the job has ended.
        """
        ours = [self.status, self.button, self.cancel]

        def row(line: str, active: bool, shown: Sequence[Any]) -> tuple[Any, ...]:
            buttons = gr.update(interactive=not active), gr.update(interactive=active)
            return line, *buttons, *shown

        async def followed(who: str) -> AsyncIterator[tuple[Any, ...]]:
            async for job, shown in follow(self.site, who, self.tab, show):
                yield row(status(job), not job.ended, shown)

        async def click(request: gr.Request, *values: Any) -> AsyncIterator[tuple[Any, ...]]:
            who = visitor(request)
            try:
                await asyncio.to_thread(start, who, *values)
            except Exception as failure:
                if not isinstance(failure, UserError):
                    LOG.exception("a job of the tab %s could not begin", self.tab)
                told = isinstance(failure, UserError)
                line = (
                    str(failure)
                    if told
                    else "something went wrong; the log of the server says what"
                )
                yield row(error(line), False, [skip() for _ in outputs])
                return
            async for update in followed(who):
                yield update

        async def load(request: gr.Request) -> AsyncIterator[tuple[Any, ...]]:
            # Gradio takes a generator that yields nothing for one that empties all of its outputs.
            yield tuple(skip() for _ in (*ours, *outputs))
            async for update in followed(visitor(request)):
                yield update

        async def stop(request: gr.Request) -> None:
            who = visitor(request)
            if job := self.site.jobs.latest(who, self.tab):
                self.site.jobs.cancel(who, job.id)

        # Any number at once: a follower takes no thread.
        free = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
        clicked = self.button.click(click, list(inputs), [*ours, *outputs], **free)
        loaded = demo.load(load, None, [*ours, *outputs], **free)
        self.cancel.click(stop, None, None, **free)
        return clicked, loaded


__all__ = ["DONE", "Panel", "error", "follow", "skip", "status"]
