"""Images that visitors upload: kept in their folder once they have been decoded, under a name of this server."""

import asyncio
import re
import secrets
from pathlib import Path

from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from nada_jax import images
from nada_jax.demo.site import Site
from nada_jax.errors import UserError, reading

# By content, whatever the name says; others are rare, and some of Pillow's readers start programs.
FORMATS = {
    "PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif",
}  # fmt: skip
DECODING = asyncio.Semaphore(2)  # images decoded at once, each up to demo.pixels
LONGEST = 60  # characters of a name


async def keep(body: bytes, kind: str, site: Site, visitor: str) -> Path:
    """Keeps the image of a form.

    Args:
      body: of the request.
      kind: its content type, multipart/form-data.
      site: the page's common part.
      visitor: whose it becomes.

    Returns:
      Its file, results/VISITOR/RANDOM/NAME.

    Raises:
      UserError: there is not one image, or it cannot be decoded or has too many pixels.
    """
    upload = await _read_form(body, kind)
    content = await upload.read()
    most = site.settings.demo.upload_megabytes
    if len(content) > most * 1e6:
        raise UserError(f"the file is larger than {most:g} MB; save it smaller")
    folder = site.results / visitor / f"upload-{secrets.token_hex(16)}"
    async with DECODING:
        return await asyncio.to_thread(
            _write, folder, upload.filename or "", content, site.settings.demo.pixels
        )


async def _read_form(body: bytes, kind: str) -> UploadFile:
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    if not kind.lower().startswith("multipart/form-data"):
        raise UserError("the upload is no form; use the page's own field")
    headers = [(b"content-type", kind.encode("latin-1"))]
    request = Request({"type": "http", "headers": headers}, receive)
    try:
        form = await request.form(max_files=1, max_fields=4)
    except (HTTPException, KeyError, ValueError) as error:
        raise UserError("the upload is no form of one file; upload one image at a time") from error
    files = [x for x in form.values() if isinstance(x, UploadFile)]
    if len(files) != 1:
        raise UserError("the upload holds no file; expected an image")
    return files[0]


def _write(folder: Path, name: str, content: bytes, pixels: int) -> Path:
    """Writes an upload, and removes it again where it is no image."""
    stem = re.sub(r"[^\w-]+", "_", Path(name.replace("\\", "/")).stem).strip("_")[:LONGEST]
    folder.mkdir(parents=True)
    raw = folder / f"{stem or 'image'}.upload"
    try:
        raw.write_bytes(content)
        try:
            suffix = _check(raw, pixels)
        except UserError as error:
            # Where it stands on this server is no matter of visitors.
            raise UserError(str(error).replace(str(raw), name[:LONGEST] or "the file")) from error
        return raw.rename(raw.with_suffix(suffix))
    except BaseException:
        raw.unlink(missing_ok=True)
        folder.rmdir()
        raise


def _check(path: Path, pixels: int) -> str:
    """The suffix of an image that can be decoded; UserError where it cannot."""
    known = ", ".join(x for x in FORMATS if x != "MPO")
    with reading(path):
        try:
            with Image.open(path, formats=tuple(FORMATS)) as file:
                suffix, size = FORMATS[file.format], file.size
        except Image.UnidentifiedImageError as error:
            raise UserError(
                f"it is no image of a kind that is taken here; expected {known}"
            ) from error
        except Image.DecompressionBombError as error:
            raise UserError(f"it has more than {pixels:,} pixels; make it smaller") from error
        if size[0] * size[1] > pixels:
            raise UserError(
                f"it has {size[0]} x {size[1]} pixels; expected at most {pixels:,} in all: make it smaller"
            )
    images.upright(path)
    return suffix
