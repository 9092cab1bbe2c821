"""Downloads of published models, and their native files, which are made at the first use.

NVIDIA's pages give no hashes, those of PyTorch do. What arrives has the length that the server announced
(`requests` checks it), is read strictly by the converter, and its own SHA-256 is kept in the header of the
native file.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from nada_jax.errors import UserError
from nada_jax.weights import native, registry
from nada_jax.weights.native import NativeModel
from nada_jax.weights.registry import Entry

ATTEMPTS = 3  # of a download; pooch waits one second, then two, between them
TIMEOUT = 30  # seconds without a byte


def native_file(entry: Entry, read: Callable[[Path], NativeModel], field: str) -> Path:
    """Finds the native file of a published model, or makes it.

    It is made from the official file that the user has put into the cache, which stays there, or else
    from the publisher's, which is removed.

    Args:
      entry: the model.
      read: official file -> model; UserError where it holds none.
      field: how messages call the name of the model.

    Returns:
      The native file; the official one where the cache cannot be written.

    Raises:
      UserError: the model cannot be fetched, is another one, or cannot be written.
    """
    directory = registry.cache()
    file = registry.native_file(entry, directory)
    if file.is_file():
        return file
    official = registry.official_file(entry, directory)
    if official and not os.access(directory, os.W_OK):
        return official
    with lock(entry, directory, field):
        if file.is_file():  # another process was faster
            return file
        if official:
            source, digest = official.name, sha256(official)
            if not digest.startswith(entry.sha256 or ""):
                raise UserError(
                    f"{field}={entry.name!r}: {official} is not the published file: {_mismatch(entry, digest)}; "
                    + remedy(entry, directory, field)
                )
        else:
            source = entry.url
            fetched, digest = fetch(entry, directory, field)
        try:
            model = read(official or fetched)
        except UserError as error:
            if official:
                raise
            discard(entry, directory)
            raise UserError(
                f"{field}={entry.name!r}: what {entry.url} sent is of no use ({error}); "
                + remedy(entry, directory, field)
            ) from error
        facts = {"license": registry.LICENSES[entry.license], "sha256": digest}
        try:
            native.save_model(model, file, source=source, **facts)
        except UserError as error:
            raise unwritable(entry, directory, field, error) from error
        discard(entry, directory)
    return file


def sha256(file: Path) -> str:
    """Computes the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def remedy(entry: Entry, directory: Path, field: str) -> str:
    """Says how to do without the network; ends a message."""
    return (
        f"download {entry.url} ({entry.megabytes} MB) where there is a network and put it at "
        f"{directory / entry.file}, or give its path as {field}"
    )


@contextlib.contextmanager
def lock(entry: Entry, directory: Path, field: str) -> Iterator[None]:
    """Lets one process at a time make the native file of a model; the others wait.

    Args:
      entry: the model.
      directory: the cache; made if it is not there.
      field: how messages call the name of the model.

    Raises:
      UserError: the cache cannot be written.
    """
    import filelock  # only where there is something to fetch

    file = directory / f".{entry.name}.lock"
    held = filelock.FileLock(file)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            held.acquire(timeout=0)
        except filelock.Timeout:
            print(f"waiting for another process that fetches {entry.name}", flush=True)
            held.acquire()
    except OSError as error:
        raise unwritable(entry, directory, field, error) from error
    try:
        yield
        # Safe only after success, when the native file exists: whoever waits for this lock, or makes a
        # new one, finds that file first.
        with contextlib.suppress(OSError):
            file.unlink()
    finally:
        held.release()


def fetch(entry: Entry, directory: Path, field: str) -> tuple[Path, str]:
    """Downloads a model, or finds what an earlier call has brought; hold its `lock`.

    Args:
      entry: the model.
      directory: the cache; the file goes into a hidden directory in it, and stays until `discard`.
      field: how messages call the name of the model.

    Returns:
      The file, whole and checked, and its SHA-256.

    Raises:
      UserError: it cannot be fetched, has another hash, or cannot be written; nothing is left behind.
    """
    import pooch
    import requests  # both imports are slow, and a cached model needs neither

    pooch.get_logger().setLevel("WARNING")
    hidden = _hidden(entry, directory)
    digest, attempt = "", 0

    def download(url: str, output: str, _: pooch.Pooch) -> None:
        nonlocal digest, attempt
        attempt += 1
        which = f", attempt {attempt} of {ATTEMPTS}" if attempt > 1 else ""
        if attempt == 1:
            print(f"licence: {registry.LICENSES[entry.license]}")
        print(f"fetching {entry.name}, {entry.megabytes} MB, from {url}{which}", flush=True)
        total = entry.megabytes * 10**6
        with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
            get = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**20, timeout=TIMEOUT)
            get(url, output, None)
        digest = sha256(Path(output))
        if not digest.startswith(entry.sha256 or ""):
            raise ValueError  # pooch compares whole hashes alone; it tries again as after its own

    fetcher = pooch.Pooch(
        path=hidden,
        base_url="",
        registry={entry.file: None},
        urls={entry.file: entry.url},
        retry_if_failed=ATTEMPTS - 1,
    )
    try:
        for leftover in hidden.glob("*"):  # of a process that was killed
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
        why = _mismatch(entry, digest)
    except OSError as error:
        raise unwritable(entry, directory, field, error) from error
    finally:
        with contextlib.suppress(OSError):  # a directory that holds the file is not empty
            hidden.rmdir()
    raise UserError(
        f"{field}={entry.name!r} is not on this machine and cannot be fetched ({why}); "
        + remedy(entry, directory, field)
    )


def discard(entry: Entry, directory: Path) -> None:
    """Removes what `fetch` has downloaded."""
    shutil.rmtree(_hidden(entry, directory), ignore_errors=True)


def unwritable(entry: Entry, directory: Path, field: str, error: Exception) -> UserError:
    """Makes the error for a cache that is full or may not be written."""
    why = getattr(error, "strerror", None) or error
    return UserError(
        f"{field}={entry.name!r} cannot be kept in {directory} ({why}); make room there, or name another "
        "directory in $NADA_JAX_CACHE"
    )


def _mismatch(entry: Entry, digest: str) -> str:
    return f"its SHA-256 is {digest}, expected {entry.sha256}"


def _hidden(entry: Entry, directory: Path) -> Path:
    return directory / f".{entry.name}"
