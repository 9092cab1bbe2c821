"""Measures an adapted generator against its source, on the same latents, as a CLIP sees them."""

import functools
import json
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from nada_jax import files, images
from nada_jax.adaptation import prompts
from nada_jax.errors import UserError
from nada_jax.evaluation import features as looking
from nada_jax.evaluation import statistics as metrics
from nada_jax.losses import clip as clip_losses
from nada_jax.models.clip import Clip
from nada_jax.models.irse import Irse50
from nada_jax.models.stylegan2 import Generator, draw_latents
from nada_jax.models.vgg import Vgg
from nada_jax.runs import reporting
from nada_jax.runs import workdir as runs
from nada_jax.weights import lineage, registry
from nada_jax.weights import loading as weights
from nada_jax.weights.lineage import Lineage

FEWEST, MOST = 8, 10_000  # pictures; of pairs there are so many squared
FID_RESAMPLES = 100  # each takes the eigenvalues of two matrices [d, d]
CONTROL_TARGET = "pencil sketch"  # what a generator by name, which nobody adapted, is held against

MEANINGS = {  # metric -> which direction is good, what it is
    "directional": ("higher", "cosine between the edit of the pictures and that of the texts"),
    "similarity": ("higher", "cosine between adapted pictures and the target text"),
    "nearer": ("higher", "share of adapted pictures nearer to the target text than to the source"),
    "nearer_source": ("lower", "the same share of source pictures, as a control"),
    "diversity": ("higher", "mean CLIP distance between two adapted pictures"),
    "diversity_kept": ("higher", "that distance over the one between source pictures"),
    "cluster_clip": ("higher", "mean CLIP distance within clusters of adapted pictures"),
    "cluster_lpips": ("higher", "mean LPIPS within clusters of adapted pictures"),
    "identity": ("higher", "cosine between the faces of source and adapted pictures"),
    "kid": ("", "kernel distance between the adapted pictures and {other}"),
    "clip_fid": ("", "Frechet distance between the adapted pictures and {other}"),
}
TRAINED = {
    True: "which took part in training and flatters the generator",
    False: "which took no part in training",
    None: "of which it is unknown whether it took part in training",
}


def run(config: ConfigDict, workdir: Path) -> int:
    """Measures as configured; see `configs/evaluate.py`.

    Writes config.json, evaluation.json, evaluation.md, metrics.jsonl, samples/grid.png (source over adapted)
    and samples/clusters.png (a row for each cluster of the adapted pictures).

    Args:
      config: all of `configs/evaluate.py`.
      workdir: where the results go.

    Returns:
      The exit code, 0.

    Raises:
      UserError: wrong input; nothing is written then.
    """
    runs.refuse_other(config, workdir, set(config) - {"task"}, "give another --workdir")
    result, sheets = measure(config)
    report = describe(result, config)

    runs.write_config(config, workdir)
    files.write_text(workdir / "evaluation.json", json.dumps(result, indent=2) + "\n")
    files.write_text(workdir / "evaluation.md", report)
    values = {name: measured["value"] for name, measured in result["metrics"].items()}
    row = {"samples": result["samples"], "seconds": result["seconds"]} | values
    reporting.write_metrics(workdir / "metrics.jsonl", [row])
    for name, pictures in sheets.items():
        path, enlarge = workdir / "samples" / f"{name}.png", images.enlargement(pictures.shape[1])
        images.save(images.grid(pictures, looking.COLUMNS), path, enlarge)
    print(report)
    print(f"numbers: {workdir / 'evaluation.json'}")
    print(f"report: {workdir / 'evaluation.md'}")
    print(f"picture: {workdir / 'samples' / 'grid.png'} (above: source, below: adapted)")
    print(f"clusters: {workdir / 'samples' / 'clusters.png'} (one a row, the largest first)")
    return 0


def measure(config: ConfigDict) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Draws, looks and counts; writes nothing.

    Args:
      config: all of `configs/evaluate.py`.

    Returns:
      What evaluation.json holds, and by name the pictures [8 n, size, size, 3] of sheets with 8 columns.

    Raises:
      UserError: wrong input.
    """
    began = time.perf_counter()
    check(config)
    known = find_lineage(config)
    source, adapted = load_pair(config, known.source)
    judge = weights.load_clip(config.judge, precision=config.precision, field="judge")
    direction = prompts.text_direction(judge, *known.texts)
    texts = jnp.stack([prompts.mean_feature(judge, text) for text in known.texts])
    judge = judge.without_texts()
    face, vgg = load_networks(config)
    real = embed_folder(config, judge, source.size) if config.folder else None

    draw = jax.jit(draw_latents, static_argnums=2)
    ws = draw(source, jax.random.key(config.seed), config.samples)
    ws = np.asarray(source.truncate(ws, config.truncation))
    look = functools.partial(looking.look, source, adapted, judge, face)
    seen = looking.batched(look, config.batch_size, ws, tell="pairs of pictures")
    before, after = seen["source"], seen["adapted"]

    random = np.random.default_rng(config.seed)
    labels = metrics.kmeans(random, after, config.clusters)
    counts = metrics.resamples(random, config.bootstrap, config.samples)
    replicates = compare(counts, before, after, labels, *jax.device_get((direction, texts)))
    if vgg is not None:
        sizes = {"most": config.lpips.pairs, "batch_size": config.batch_size}
        distances = looking.lpips_within(adapted, vgg, ws, labels, random, **sizes)
        replicates["cluster_lpips"] = metrics.within(counts, distances, labels)
    if face is not None:
        replicates["identity"] = metrics.mean(counts, seen["identity"])
    # At length sqrt(d) the kernel is (cosine + 1)^3; that of unit vectors would be all but linear.
    scale = math.sqrt(after.shape[1])
    if real is None:
        others, other_counts = before, counts
        replicates["kid"] = metrics.kid_paired(counts, scale * before, scale * after)
    else:
        others, other_counts = real, metrics.resamples(random, config.bootstrap, len(real))
        replicates["kid"] = metrics.kid(other_counts, counts, scale * real, scale * after)
    few = slice(1 + FID_RESAMPLES)
    replicates["clip_fid"] = metrics.fid(other_counts[few], counts[few], others, after)

    sheets = {
        "grid": looking.draw_pairs(source, adapted, ws),
        "clusters": looking.draw_clusters(adapted, ws, after, labels),
    }
    return {
        "source": known.source,
        "adapted": config.generator.weights,
        "texts": known.texts,
        "judge": config.judge,
        "judge_trained": None if known.clips is None else config.judge in known.clips,
        "samples": config.samples,
        "folder": config.folder or None,
        "metrics": {
            name: metrics.interval(replicates[name], config.confidence)
            for name in MEANINGS
            if name in replicates
        },
        "seconds": time.perf_counter() - began,
    }, sheets


def check(config: ConfigDict) -> None:
    """Refuses fields that cannot work; UserError names the field."""

    def need(good: bool, field: str, value: float, expected: str) -> None:
        if not good:
            raise UserError(f"{field} is {value!r}; expected {expected}")

    if not Path(config.judge).expanduser().is_file():
        weights.find_clip(config.judge, "judge")
    for field in ("batch_size", "clusters", "bootstrap"):
        need(config[field] >= 1, field, config[field], "at least 1")
    need(config.lpips.pairs >= 1, "lpips.pairs", config.lpips.pairs, "at least 1")
    fewest = max(FEWEST, 2 * config.clusters)
    expected = f"{fewest} to {MOST:,}, and at least 2 for each of {config.clusters} clusters"
    need(fewest <= config.samples <= MOST, "samples", config.samples, expected)
    need(0 <= config.seed < 2**31, "seed", config.seed, "a whole number in 0..2^31 - 1")
    share = "a share between 0 and 1, such as 0.95"
    need(0 < config.confidence < 1, "confidence", config.confidence, share)
    psi = config.truncation
    expected = "a number such as 1.0, and not 0, which draws one picture only"
    need(math.isfinite(psi) and psi != 0, "truncation", psi, expected)


def find_lineage(config: ConfigDict) -> Lineage:
    """Says what was adapted to what, and which CLIPs took part in it.

    The config comes first, then the header of the adapted generator's file.

    Raises:
      UserError: neither says it.
    """
    name = config.generator.weights
    path = weights.find_generator(name)
    published = registry.GENERATORS.get(name)
    known = Lineage()
    if name in registry.EMBEDDED or published:
        text = published.source_text if published else registry.EMBEDDED[name][2]
        known = Lineage(name, (text, CONTROL_TARGET), ())
    elif path.suffix == ".safetensors":
        known = lineage.read(path)
    source = config.source.weights or known.source
    own = config.text.source, config.text.target
    texts = tuple(given or told for given, told in zip(own, known.texts, strict=True))
    fields = {"source.weights": source, "text.source": texts[0], "text.target": texts[1]}
    for field, value in fields.items():
        if not value:
            raise UserError(
                f"{field} is empty, and the file of generator.weights={name!r} does not tell it; "
                "expected " + ("a generator" if field == "source.weights" else "a text")
            )
    return Lineage(source, texts, known.clips)


def load_pair(config: ConfigDict, source: str) -> tuple[Generator, Generator]:
    """Loads source and adapted generator; UserError where they cannot share latents."""
    names = {"source.weights": source, "generator.weights": config.generator.weights}
    pair = [
        weights.load_generator(name, precision=config.precision, field=field)
        for field, name in names.items()
    ]
    shapes = [(g.num_layers, g.architecture.w_dim) for g in pair]
    if shapes[0] != shapes[1]:
        raise UserError(
            " and ".join(
                f"{field}={name!r} (latents of {layers} x {w_dim})"
                for (field, name), (layers, w_dim) in zip(names.items(), shapes, strict=True)
            )
            + " cannot draw the same latents; expected a generator and its source"
        )
    return pair[0], pair[1]


def load_networks(config: ConfigDict) -> tuple[Irse50 | None, Vgg | None]:
    """Loads what measures `identity` and `cluster_lpips`, as far as it is given."""
    face = vgg = None
    if config.identity.weights:
        face = weights.load_model(Irse50, config.identity.weights, field="identity.weights")
    if config.lpips.weights:
        vgg = weights.load_lpips(config.lpips.weights, field="lpips.weights")
    return face, vgg


def compare(
    counts: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    labels: np.ndarray,
    direction: np.ndarray,
    texts: np.ndarray,
) -> dict[str, np.ndarray]:
    """What a CLIP tells of source and adapted pictures of the same latents.

    Args:
      counts: see `metrics`, [r, n].
      before, after: unit features of the pictures [n, d].
      labels: clusters of the adapted pictures [n].
      direction: unit text direction [d].
      texts: unit features of source and target text [2, d].

    Returns:
      Replicates [r] by metric.
    """
    edit = 1 - np.asarray(clip_losses.directional(before, after, direction))
    distances = metrics.cosine_distances(after)
    diversity = metrics.pairwise(counts, distances)
    nearer_source, nearer = ((x @ texts[1] > x @ texts[0]) for x in (before, after))
    return {
        "directional": metrics.mean(counts, edit),
        "similarity": metrics.mean(counts, after @ texts[1]),
        "nearer": metrics.mean(counts, nearer),
        "nearer_source": metrics.mean(counts, nearer_source),
        "diversity": diversity,
        "diversity_kept": diversity / metrics.pairwise(counts, metrics.cosine_distances(before)),
        "cluster_clip": metrics.within(counts, distances, labels),
    }


def embed_folder(config: ConfigDict, judge: Clip, size: int) -> np.ndarray:
    """Features [m, d] of the pictures of a folder, read at the size that the generators draw."""
    embed = functools.partial(prompts.embed_pictures, judge)
    batches = images.stream(config.folder, size, field="folder", batch=config.batch_size)
    features = np.concatenate(
        [looking.batched(embed, config.batch_size, batch) for batch in batches]
    )
    if not FEWEST <= len(features) <= MOST:
        raise UserError(
            f"folder={config.folder!r} holds {len(features)} pictures; expected {FEWEST} to {MOST:,}"
        )
    return features


def describe(result: dict[str, Any], config: ConfigDict) -> str:
    """The result in Markdown: what was measured, and a table of it."""
    other = "those of the folder" if result["folder"] else "the source's"
    rows = []
    for name, measured in result["metrics"].items():
        better, meaning = MEANINGS[name]
        numbers = {key: f"{value:z.4f}" for key, value in measured.items()}
        rows.append(
            {
                "metric": name,
                "value": numbers["value"],
                f"{100 * config.confidence:g} % interval": f"{numbers['low']} .. {numbers['high']}",
                "better": better or ("lower" if result["folder"] else ""),
                "what": meaning.format(other=other),
            }
        )
    source, target = result["texts"]
    lines = [
        f"# {source!r} -> {target!r}\n",
        f"- adapted: {result['adapted']}",
        f"- source: {result['source']}",
        f"- judge: {result['judge']}, {TRAINED[result['judge_trained']]}",
        f"- pictures: {result['samples']} of each, from the same latents; truncation "
        f"{config.truncation:g}, seed {config.seed}",
    ]
    if result["folder"]:
        lines.append(f"- folder: {result['folder']}")
    return "\n".join([*lines, "", reporting.table(rows), ""])
