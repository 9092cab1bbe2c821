"""Lists the weights that go by name, and fetches them ahead of time."""

import json
from pathlib import Path
from typing import Any

import safetensors
from ml_collections import ConfigDict

from nada_jax import files
from nada_jax.errors import UserError
from nada_jax.runs import workdir as runs
from nada_jax.weights import loading as weights
from nada_jax.weights import registry

CLIP_WEIGHTS = ("flax_model.msgpack", "model.safetensors", "pytorch_model.bin")

Row = dict[str, Any]


def run(config: ConfigDict, workdir: Path) -> int:
    """Fetches what is asked for and lists everything; see `configs/weights.py`.

    Writes config.json and weights.json, the list with full paths, addresses and hashes.

    Args:
      config: all of `configs/weights.py`.
      workdir: where the results go.

    Returns:
      The exit code, 0.

    Raises:
      UserError: an unknown name, or one that cannot be fetched; nothing is written into the workdir then.
    """
    names = [name.strip() for name in config.fetch.split(",") if name.strip()]
    known = [*registry.GENERATORS, *registry.CLIPS]
    for name in names:
        if name not in known:
            raise UserError(f"fetch names {name!r}; expected some of {', '.join(known)}")
    runs.refuse_other(config, workdir, {"fetch"}, "give another --workdir")
    for name in names:
        weights.find_clip(name) if name in registry.CLIPS else weights.find_generator(name)

    generators, clips = _generators(), _clips()
    runs.write_config(config, workdir)
    listed = json.dumps(generators + clips, indent=2) + "\n"
    files.write_text(workdir / "weights.json", listed)
    print(_table("generator", generators) + "\n")
    print(_table("clip", clips) + "\n")
    for name, meaning in registry.LICENSES.items():
        print(f"{name}: {meaning}")
    print(f"cache: {weights.cache()}; CLIPs from the hub are in that of Hugging Face")
    print(f"list: {workdir / 'weights.json'}")
    return 0


def _generators() -> list[Row]:
    """One row a generator that `generator.weights` knows by name."""
    rows = []
    for name, (pictures, size, text) in registry.EMBEDDED.items():
        path = weights.ASSETS / f"{name}.safetensors"
        row = _row(name, pictures, size, license="Apache-2.0", source_text=text)
        rows.append(row | _found("embedded", path))
    cache = weights.cache()
    for entry in registry.GENERATORS.values():
        row = _row(
            entry.name,
            entry.pictures,
            entry.size,
            megabytes=entry.megabytes,
            license=entry.license,
            pictures_license=entry.pictures_license,
            source_text=entry.source_text,
            url=entry.url,
            sha256=entry.sha256,
        )
        native = registry.native_file(entry, cache)
        official = registry.official_file(entry, cache)
        if native.is_file():
            row |= _found("cached", native) | _origin(native)
        elif official:
            row |= _found("official file", official)
        rows.append(row)
    return rows


def _clips() -> list[Row]:
    """One row a CLIP: those of the package, and those on the hub that the recipes use."""
    import huggingface_hub

    rows = []
    for directory in sorted(weights.ASSETS.glob("clip-*")):
        name, size = directory.name.removeprefix("clip-"), _image_size(directory)
        row = _row(name, "cartoons", size, license="Apache-2.0")
        rows.append(row | _found("embedded", directory / "model.safetensors"))
    for name, (size, megabytes) in registry.CLIPS.items():
        url = f"https://huggingface.co/{name}"
        row = _row(name, "any", size, megabytes=megabytes, license="MIT", url=url)
        for file in CLIP_WEIGHTS:
            path = huggingface_hub.try_to_load_from_cache(name, file)
            if isinstance(path, str):
                row |= _found("cached", Path(path))
                break
        rows.append(row)
    return rows


def _row(name: str, pictures: str, size: int, **known: Any) -> Row:
    """A row of weights.json; what is not known is null."""
    fields = ("megabytes", "license", "pictures_license", "source_text", "url", "sha256")
    row: Row = {"name": name, "pictures": pictures, "size": size}
    row |= {field: known.get(field) for field in fields}
    return row | {"state": "absent", "path": None, "bytes": None}


def _found(state: str, path: Path) -> Row:
    return {"state": state, "path": str(path), "bytes": path.stat().st_size}


def _origin(native: Path) -> Row:
    """The address and hash of what a native file was made from, out of its header."""
    try:
        with safetensors.safe_open(native, framework="numpy") as file:
            header = file.metadata() or {}
    except (safetensors.SafetensorError, OSError):
        return {"state": "damaged"}
    return {"url": header.get("source"), "sha256": header.get("sha256")}


def _image_size(directory: Path) -> int:
    return json.loads((directory / "config.json").read_text("utf-8"))["vision_config"]["image_size"]


def _table(title: str, rows: list[Row]) -> str:
    """The rows as text, the columns as wide as they must be."""
    columns = {
        title: [row["name"] for row in rows],
        "pictures": [f"{row['pictures']}, {row['size']} px" for row in rows],
        "download": [f"{row['megabytes']} MB" if row["megabytes"] else "" for row in rows],
        "here": [_here(row) for row in rows],
        "text.source": [row["source_text"] or "" for row in rows],
        "licence": [row["license"] for row in rows],
        "of the pictures": [row["pictures_license"] or "" for row in rows],
        "sha256": [(row["sha256"] or "")[:12] for row in rows],
    }
    shown = [(head, *cells) for head, cells in columns.items() if any(cells)]
    widths = [max(map(len, column)) for column in shown]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*shown, strict=True)
    )
    return "\n".join(lines)


def _here(row: Row) -> str:
    if row["state"] == "absent":
        return "no"
    place = "" if row["state"] == "embedded" else f" {Path(row['path']).name}"
    return f"{row['state']}{place}, {row['bytes'] / 1e6:.0f} MB"
