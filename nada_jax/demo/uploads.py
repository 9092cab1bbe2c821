"""Images that visitors upload: kept in their folder once they have been decoded, under a name of this server."""

import asyncio
import re
import secrets
from pathlib import Path

from PIL import Image
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.types import Receive

from nada_jax import files, images
from nada_jax.demo.jobs import UPLOAD
from nada_jax.demo.site import Site
from nada_jax.errors import UserError, reading

# By content, whatever the name says; others are rare, and some of Pillow's readers start programs.
FORMATS = {
    "PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif",
}  # fmt: skip
DECODING = asyncio.Semaphore(2)  # images decoded at once, each up to demo.pixels
INNER = "MPO"  # a JPEG with further images, which the reader of JPEG finds
KNOWN = ", ".join(x for x in FORMATS if x != INNER)
MOST = 8  # files of one request
LONGEST = 60  # characters of a name


async def keep(receive: Receive, kind: str, site: Site, visitor: str) -> list[Path]:
    """Keeps the images of a form.

    Args:
      receive: gives the body of the request.
      kind: its content type, multipart/form-data.
      site: the page's common part.
      visitor: whose they become.

    Returns:
      Their files, each results/VISITOR/upload-RANDOM/NAME.

    Raises:
      UserError: there is none, or too many, or one cannot be decoded or has too many pixels.
    """
    if not kind.lower().startswith("multipart/form-data"):
        raise UserError("the upload is no form; use the page's own field")
    demo = site.settings.demo
    request = Request(
        {"type": "http", "headers": [(b"content-type", kind.encode("latin-1"))]}, receive
    )
    kept = []
    try:
        async with request.form(max_files=MOST, max_fields=4) as form:
            given = [x for _, x in form.multi_items() if isinstance(x, UploadFile)]
            if not given:
                raise UserError("the upload holds no file; expected an image")
            for upload in given:
                if (upload.size or 0) > demo.upload_megabytes * 1e6:
                    raise UserError(
                        f"the file is larger than {demo.upload_megabytes:g} MB; save it smaller"
                    )
                folder = site.results / visitor / f"{UPLOAD}{secrets.token_hex(16)}"
                content = await upload.read()
                async with DECODING:
                    kept.append(
                        await asyncio.to_thread(
                            _write, folder, upload.filename or "", content, demo.pixels
                        )
                    )
    except (HTTPException, MultiPartException, KeyError, ValueError) as error:
        for path in kept:  # all of them or none
            path.unlink()
            path.parent.rmdir()
        if isinstance(error, UserError):
            raise
        raise UserError(f"the upload is no form of 1 to {MOST} files") from error
    return kept


def _write(folder: Path, name: str, content: bytes, pixels: int) -> Path:
    """Writes an upload, and removes it again where it is no image."""
    stem = re.sub(r"[^\w-]+", "_", Path(name.replace("\\", "/")).stem).strip("_")[:LONGEST]
    folder.mkdir(parents=True)
    raw = folder / f"{stem or 'image'}.upload"
    try:
        try:
            with files.writing(raw):
                raw.write_bytes(content)
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
    with reading(path):
        try:
            with Image.open(path, formats=[x for x in FORMATS if x != INNER]) as file:
                suffix, size = FORMATS[file.format], file.size
        except Image.UnidentifiedImageError as error:
            raise UserError(
                f"it is no image of a kind that is taken here; expected {KNOWN}"
            ) from error
        except Image.DecompressionBombError as error:
            raise UserError(f"it has more than {pixels:,} pixels; make it smaller") from error
        if size[0] * size[1] > pixels:
            raise UserError(
                f"it has {size[0]} x {size[1]} pixels; expected at most {pixels:,} in all: make it smaller"
            )
    images.upright(path)
    return suffix
