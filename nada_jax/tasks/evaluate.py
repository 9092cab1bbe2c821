"""Measures an adapted generator against its source, on the same latents, as a CLIP sees them."""

import time
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nada_jax import tables
from nada_jax.adaptation import prompts
from nada_jax.evaluation import comparisons, generators, observations, sheets
from nada_jax.evaluation.observations import Sampling
from nada_jax.runs.workdir import Run
from nada_jax.settings import Precision, Rule
from nada_jax.weights import loading

# The remedy for a lack of memory.
MEMORY = "lower batch_size, samples or bootstrap, give a smaller judge, or set precision=bfloat16"
Confidence = Annotated[float, Rule(lambda x: 0 < x < 1, "a share between 0 and 1, such as 0.95")]
TRAINED = {  # whether the judge took part in training
    True: "which took part in training and flatters the generator",
    False: "which took no part in training",
    None: "of which it is unknown whether it took part in training",
}
RESULTS = (
    "evaluation.json", "evaluation.md", "metrics.jsonl", "samples/grid.png", "samples/clusters.png",
)  # fmt: skip


class Settings(Sampling):
    """All of `configs/evaluate.py`."""

    task: str
    precision: Precision
    generator: generators.Adapted
    source: generators.Source
    text: generators.Text
    judge: str
    confidence: Confidence


def run(config: ConfigDict, workdir: Path) -> int:
    """Measures as configured; see `configs/evaluate.py`.

    Writes config.json, evaluation.json, evaluation.md, metrics.jsonl, samples/grid.png (source over adapted)
    and samples/clusters.png (a row for each cluster of the adapted images).

    Args:
      config: all of `configs/evaluate.py`.
      workdir: where the results go.

    Returns:
      The exit code, 0.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    settings = Settings.read(config)
    with Run(config, workdir, results=RESULTS) as run:
        return evaluate(run, settings)


def evaluate(run: Run, settings: Settings) -> int:
    """Measures, and writes into the workdir that the run holds; see `run`."""
    result, drawn = measure(settings)
    report = describe(result, settings)

    # Only now: wrong input, which loading and measuring may reveal, leaves no workdir behind.
    run.begin()
    numbers = run.write_json("evaluation.json", result)
    text = run.write_text("evaluation.md", report)
    values = {name: measured["value"] for name, measured in result["metrics"].items()}
    run.write_metrics([{"samples": result["samples"], "seconds": result["seconds"]} | values])
    files = {
        name: run.write_images(f"samples/{name}.png", batch, sheets.COLUMNS)
        for name, batch in drawn.items()
    }
    print(report)
    print(f"numbers: {numbers}")
    print(f"report: {text}")
    print(f"image: {files['grid']} (above: source, below: adapted)")
    print(f"clusters: {files['clusters']} (one a row, the largest first)")
    return 0


def measure(settings: Settings) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Draws, embeds and measures; writes nothing.

    Returns:
      What evaluation.json holds, and by name the images [8 n, size, size, 3] of sheets with 8 columns.

    Raises:
      UserError: wrong input.
    """
    began = time.perf_counter()
    origin = generators.trace(settings.generator, settings.source, settings.text)
    weights = settings.generator.weights
    source, adapted = generators.load_pair(weights, origin.source, settings.precision)
    judge = loading.load_clip(settings.judge, precision=settings.precision, field="judge")
    words = {
        "direction": prompts.text_direction(judge, *origin.texts),
        "texts": jnp.stack([prompts.mean_feature(judge, text) for text in origin.texts]),
    }
    judge = judge.without_texts()  # the text tower is half of a CLIP, and no longer needed
    ws = observations.draw(source, settings)
    seen = observations.observe(
        settings, source, adapted, judge, ws, report=print_progress, **jax.device_get(words)
    )
    drawn = {
        "grid": sheets.draw_pairs(source, adapted, ws),
        "clusters": sheets.draw_clusters(adapted, ws, seen.adapted, seen.labels),
    }
    return {
        "source": origin.source,
        "adapted": weights,
        "texts": origin.texts,
        "judge": settings.judge,
        "judge_trained": None if origin.clips is None else settings.judge in origin.clips,
        "samples": settings.samples,
        "folder": settings.folder or None,
        "metrics": comparisons.measure(seen, settings.confidence),
        "seconds": time.perf_counter() - began,
    }, drawn


def describe(result: dict[str, Any], settings: Settings) -> str:
    """The result in Markdown: what was measured, and a table of it."""
    rows = []
    for name, measured in result["metrics"].items():
        # "z": what rounds to zero has no sign, as estimates of zero fall on either side of it.
        numbers = {key: f"{value:z.4f}" for key, value in measured.items()}
        rows.append(
            {
                "metric": name,
                "value": numbers["value"],
                f"{100 * settings.confidence:g} % interval": f"{numbers['low']} .. {numbers['high']}",
                "better": comparisons.METRICS[name].better or ("lower" if settings.folder else ""),
                "what": comparisons.meaning(name, settings.folder),
            }
        )
    source, target = result["texts"]
    lines = [
        f"# {source!r} -> {target!r}\n",
        f"- adapted: {result['adapted']}",
        f"- source: {result['source']}",
        f"- judge: {result['judge']}, {TRAINED[result['judge_trained']]}",
        f"- images: {result['samples']} of each, from the same latents; truncation "
        f"{settings.truncation:g}, seed {settings.seed}",
    ]
    if result["folder"]:
        lines.append(f"- folder: {result['folder']}")
    return "\n".join([*lines, "", tables.markdown(rows), ""])


def print_progress(what: str, done: int, total: int) -> None:
    """A line for each finished batch: on one CPU there are seconds between them."""
    print(f"{what}: {done}/{total}", flush=True)
