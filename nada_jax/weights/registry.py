"""Published generators by name: where they are, under which licence, and how they come here.

NVIDIA's pages give no hashes: what arrives has the length that the server announced (requests sees to that), is
read strictly by the converter, and its own SHA-256 is kept in the header of the converted file.
"""

import contextlib
import dataclasses
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from nada_jax.errors import UserError

ATTEMPTS = 3  # of a download, with a second and then two between them
TIMEOUT = 30  # seconds without a byte
BY_HAND = (".pkl", ".pt", ".pth")  # endings of official files that a user may put into the cache


@dataclasses.dataclass(frozen=True)
class Entry:
    """A published generator.

    Attributes:
      name: for `generator.weights`.
      pictures: what it draws, and the data set that it learnt from.
      size: their width and height in pixels.
      megabytes: of the download, in millions of bytes.
      source_text: what the generator draws in words, for `text.source`.
      license: of the weights; a key of `LICENSES`.
      pictures_license: of the data set.
      url: the publisher's file.
      sha256: of this file, where the publisher gives it.
    """

    name: str
    pictures: str
    size: int
    megabytes: int
    source_text: str
    license: str
    pictures_license: str
    url: str
    sha256: str | None = None

    @property
    def file(self) -> str:
        """The publisher's file name."""
        return self.url.rpartition("/")[2]


LICENSES = {  # what each key stands for
    "NVIDIA-NC": "Nvidia Source Code License-NC, for research or evaluation only, "
    "https://nvlabs.github.io/stylegan2/license.html",
    "NVIDIA-ADA": "NVIDIA Source Code License for StyleGAN2-ADA, for research or evaluation only, "
    "https://nvlabs.github.io/stylegan2-ada-pytorch/license.html",
    "MIT": "that of OpenAI's CLIP, https://github.com/openai/CLIP/blob/main/LICENSE",
    "Apache-2.0": "part of this package; nada_jax/assets/README.md names the drawings behind it",
}
NC, ADA_NC = "NVIDIA-NC", "NVIDIA-ADA"
STYLEGAN2 = "https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks/stylegan2"
ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"

# Megabytes: as copies of the files on the Hugging Face hub have them; of ffhq256, by its parameters.
# fmt: off
GENERATORS = {entry.name: entry for entry in (
    Entry("ffhq1024", "faces, FFHQ", 1024, 382, "photo", NC, "CC BY-NC-SA 4.0",
          f"{STYLEGAN2}-ffhq-config-f.pkl"),  # what StyleGAN-NADA starts from
    Entry("ffhq256", "faces, FFHQ", 256, 296, "photo", ADA_NC, "CC BY-NC-SA 4.0",
          f"{ADA}/transfer-learning-source-nets/ffhq-res256-mirror-paper256-noaug.pkl"),
    Entry("metfaces", "faces in art, MetFaces", 1024, 382, "painting", ADA_NC, "CC BY-NC 2.0",
          f"{ADA}/metfaces.pkl"),
    Entry("afhqcat", "cats, AFHQ", 512, 364, "cat", ADA_NC, "CC BY-NC 4.0",
          f"{ADA}/afhqcat.pkl"),
    Entry("afhqdog", "dogs, AFHQ", 512, 364, "dog", ADA_NC, "CC BY-NC 4.0",
          f"{ADA}/afhqdog.pkl"),
    Entry("afhqwild", "wild animals, AFHQ", 512, 364, "wild animal", ADA_NC, "CC BY-NC 4.0",
          f"{ADA}/afhqwild.pkl"),
    Entry("lsun-car", "cars, LSUN", 512, 364, "car", NC, "unknown",
          f"{STYLEGAN2}-car-config-f.pkl"),  # 512 x 384, black above and below
    Entry("lsun-church", "churches, LSUN", 256, 357, "church", NC, "unknown",
          f"{STYLEGAN2}-church-config-f.pkl"),
    Entry("lsun-horse", "horses, LSUN", 256, 357, "horse", NC, "unknown",
          f"{STYLEGAN2}-horse-config-f.pkl"),
    Entry("lsun-cat", "cats, LSUN", 256, 357, "cat", NC, "unknown",
          f"{STYLEGAN2}-cat-config-f.pkl"),
)}
# fmt: on
EMBEDDED = {  # in nada_jax/assets, whose README says more: pictures, their size, source text
    "avatar64": ("cartoon portraits", 64, "cartoon portrait"),
}
CLIPS = {  # hub names in the recipes: size of their pictures, megabytes of the Flax weights
    "openai/clip-vit-base-patch32": (224, 605),
    "openai/clip-vit-base-patch16": (224, 598),
}


def native_file(entry: Entry, cache: Path) -> Path:
    """Where the converted generator stands, once it does."""
    return cache / f"{entry.name}.safetensors"


def official_file(entry: Entry, cache: Path) -> Path | None:
    """An official file that the user has put into the cache, under either name."""
    places = [cache / entry.file, *(cache / f"{entry.name}{ending}" for ending in BY_HAND)]
    return next((place for place in places if place.is_file()), None)


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def remedy(entry: Entry, cache: Path, field: str) -> str:
    """How to do without the network; ends a message."""
    return (
        f"download {entry.url} ({entry.megabytes} MB) where there is a network and put it at "
        f"{cache / entry.file}, or give its path as {field}"
    )


@contextlib.contextmanager
def lock(entry: Entry, cache: Path, field: str) -> Iterator[None]:
    """Lets one process at a time make the native file of a generator; the others wait.

    Args:
      entry: the generator.
      cache: where it shall stand; made if it is not there.
      field: how messages call the name of the generator.

    Raises:
      UserError: the cache cannot be written.
    """
    import filelock

    file = cache / f".{entry.name}.lock"
    held = filelock.FileLock(file)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except filelock.Timeout:
            print(f"waiting for another process that fetches {entry.name}", flush=True)
            held.acquire()
    except OSError as error:
        raise unwritable(entry, cache, field, error) from error
    try:
        yield
        # The native file stands: whoever waits for this lock or makes a new one finds it.
        with contextlib.suppress(OSError):
            file.unlink()
    finally:
        held.release()


def fetch(entry: Entry, cache: Path, field: str) -> tuple[Path, str]:
    """Downloads a generator, or finds what an earlier call has brought; hold its `lock`.

    Args:
      entry: the generator.
      cache: the file goes into a hidden directory there, and stays until `discard`.
      field: how messages call the name of the generator.

    Returns:
      The file, whole and checked, and its SHA-256.

    Raises:
      UserError: it cannot be had, is not what it should be, or cannot be written; nothing stays.
    """
    import pooch
    import requests  # both take a moment, which a cached generator saves

    pooch.get_logger().setLevel("WARNING")
    directory = _directory(entry, cache)
    digest, attempt = "", 0

    def download(url: str, output: str, _: pooch.Pooch) -> None:
        nonlocal digest, attempt
        attempt += 1
        which = f", attempt {attempt} of {ATTEMPTS}" if attempt > 1 else ""
        if attempt == 1:
            print(f"licence: {LICENSES[entry.license]}")
        print(f"fetching {entry.name}, {entry.megabytes} MB, from {url}{which}", flush=True)
        total = entry.megabytes * 10**6
        with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            get = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**20, timeout=TIMEOUT)
            get(url, output, None)
        digest = sha256(Path(output))

    fetcher = pooch.Pooch(
        path=directory,
        base_url="",
        registry={entry.file: entry.sha256},
        urls={entry.file: entry.url},
        retry_if_failed=ATTEMPTS - 1,
    )
    try:
        for leftover in directory.glob("*"):  # of a process that was killed
            if leftover.name != entry.file:
                leftover.unlink()
        file = Path(fetcher.fetch(entry.file, downloader=download))
        return file, digest or sha256(file)
    except requests.HTTPError as error:
        why = f"the server answers {error.response.status_code} {error.response.reason}"
    except requests.exceptions.ChunkedEncodingError:
        why = "the connection broke off"
    except requests.RequestException as error:
        why = f"no connection to {urlsplit(entry.url).netloc} ({type(error).__name__})"
    except ValueError:
        why = f"its SHA-256 is {digest}, expected {entry.sha256}"
    except OSError as error:
        raise unwritable(entry, cache, field, error) from error
    finally:
        with contextlib.suppress(OSError):  # it stays where it holds the file
            directory.rmdir()
    raise UserError(
        f"{field}={entry.name!r} is not on this machine and cannot be fetched ({why}); "
        + remedy(entry, cache, field)
    )


def discard(entry: Entry, cache: Path) -> None:
    """Removes what `fetch` has brought."""
    shutil.rmtree(_directory(entry, cache), ignore_errors=True)


def unwritable(entry: Entry, cache: Path, field: str, error: Exception) -> UserError:
    """What to raise where the cache is full or may not be written."""
    why = getattr(error, "strerror", None) or error
    return UserError(
        f"{field}={entry.name!r} cannot be kept in {cache} ({why}); make room there, or name another "
        "directory in $NADA_JAX_CACHE"
    )


def _directory(entry: Entry, cache: Path) -> Path:
    return cache / f".{entry.name}"
