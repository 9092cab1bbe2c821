"""What all tabs share: settings, jobs, models, and the adapted generators that a visitor may choose from."""

import contextlib
from pathlib import Path

from nada_jax import files
from nada_jax.demo.job import DONE
from nada_jax.demo.jobs import Jobs
from nada_jax.demo.models import Models
from nada_jax.demo.settings import Settings
from nada_jax.errors import UserError
from nada_jax.weights import domains, lineage, presets

SOURCE = "the source itself"  # among generators to choose from
RESULTS = "results"  # within the workdir: a folder of each visitor


class Site:
    """The page's common part.

    Args:
      settings: all of `configs/demo.py`.
      workdir: where results go.

    Attributes:
      results: the folder of all visitors' results.
      jobs, models: see there.
    """

    def __init__(self, settings: Settings, workdir: Path):
        demo = settings.demo
        self.settings, self.workdir = settings, files.expand(workdir).absolute()
        self.results = self.workdir / RESULTS
        self.results.mkdir(parents=True, exist_ok=True)
        self.models = Models(settings.generator.weights, settings.precision)
        known = presets.names()
        for name in demo.presets:  # the user's, who would miss one that is spelled otherwise
            if name not in known:
                domains.find(name, "demo.presets")
        self.jobs = Jobs(
            self.results,
            each=demo.jobs,
            waiting=demo.waiting,
            minutes=demo.minutes,
            hours=demo.hours,
            megabytes=demo.disk_megabytes,
        )

    def presets(self, visitor: str) -> dict[str, str]:
        """The adapted generators that a visitor may choose.

        Returns:
          Text for people -> what `Models.domain` and `domains.find` take: those of `demo.presets`, or all that ship
          and recipes that have been run here on the same source, marked "(run)"; then the visitor's own, the newest
          first, marked "(yours)".
        """
        demo, offered = self.settings.demo, {}
        for preset in presets.shipped():
            chosen = not demo.presets or preset.name in demo.presets
            if chosen and self._is_source(preset.source):
                offered[preset.title] = f"preset:{preset.name}"
        for name in demo.presets or domains.RECIPES:
            with contextlib.suppress(UserError):  # a recipe that has not been run here
                file = domains.find(name)
                if demo.presets or self._is_source(lineage.read(file).source):
                    offered[_unlike(f"{name.replace('_', ' ')} (run)", offered)] = name
        for job in reversed(self.jobs.of(visitor)):
            if job.tab == "adapt" and job.state == DONE:
                offered[_unlike(f"{job.title} (yours)", offered)] = str(job.result.generator)
        return offered

    def _is_source(self, weights: str) -> bool:
        """Whether weights, as a header names them, are those of the page; unknown ones may be."""
        ours = files.expand(self.settings.generator.weights)
        return not weights or files.expand(weights).resolve() == ours.resolve()

    def pictures(self) -> dict[str, Path]:
        """Value of `presets` -> picture, of those that ship."""
        return {f"preset:{preset.name}": preset.image for preset in presets.shipped()}

    def choose(self, visitor: str, label: str) -> str:
        """The value of a label of `presets`; UserError for one that is not among them, whoever sent it."""
        offered = self.presets(visitor)
        if label not in offered:
            raise UserError(f"{label!r} is not among the presets; choose one of the list")
        return offered[label]


def _unlike(label: str, taken: dict[str, str]) -> str:
    """A label that none of the others has."""
    number, chosen = 1, label
    while chosen in taken:
        number += 1
        chosen = f"{label} ({number})"
    return chosen
