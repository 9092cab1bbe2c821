"""Where a network stands in what a checkpoint holds: in which table, and behind which prefix.

Checkpoints differ in what they put around a state dict: tables ("g_ema", "state_dict", "params_ema"), names
of other networks beside it ("generator.", "decoder."), and the wrappers of PyTorch ("module.",
"_orig_mod."). A network is found by keys that it alone has, wherever they stand.
"""

import collections
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from convert.unpickle import reader
from nada_jax.errors import UserError

T = TypeVar("T")

MOST = 100  # networks in a table; a small file could name so many that sorting them out takes hours
DEPTH = 4  # tables within tables; published checkpoints have two
# Names of a network while it trains, where others end in "ema".
TRAINED = re.compile(r"g|net_?g|gen|generator", re.IGNORECASE)
AVERAGED = re.compile(r"ema|average|avg|running|smooth|shadow", re.IGNORECASE)


class Found(NamedTuple):
    """A network in a checkpoint.

    Attributes:
      arrays: by its own keys.
      place: its table and prefix, as messages name them; "" for a plain state dict.
      around: the tables that it stands in, from the innermost on.
    """

    arrays: dict[str, np.ndarray]
    place: str
    around: tuple[Mapping[str, Any], ...]

    def beside(self, key: str) -> Any:
        """What stands under a name beside the network, in the table that is nearest; None if nothing."""
        return next((table[key] for table in self.around if table.get(key) is not None), None)


def find(content: Any, landmarks: str, path: Path, what: str) -> Found | None:
    """Finds a network.

    Args:
      content: what `reader.read` returned.
      landmarks: a regular expression of keys that this kind of network has and others lack.
      path: the file, for messages.
      what: the network, for messages.

    Returns:
      The network, averaged over its training where the file has that; None where there is none. Warns
      where the file has another one alone.

    Raises:
      UserError: it holds several, and their names do not say which is the averaged one.
    """
    landmark = re.compile(rf"((?:.+?\.)??)(?:{landmarks})")
    candidates: dict[str, Found] = {}
    for names, tables in _walk(content):
        table = reader.unwrapped(tables[0], path)
        prefixes = {m[1]: None for key in table if (m := landmark.fullmatch(key))}
        if len(prefixes) > MOST:
            raise UserError(
                f"{path} holds {len(prefixes):,} networks of the kind {what}; expected one"
            )
        for prefix in prefixes:  # a dictionary keeps their order
            arrays = {
                key.removeprefix(prefix): x
                for key, x in table.items()
                if key.startswith(prefix) and isinstance(x, np.ndarray)
            }
            place = ".".join([*names, *filter(None, [prefix.removesuffix(".")])])
            candidates[place] = Found(arrays, place, tables)
    return choose(candidates, path, what)


def state_dict(path: Path, landmarks: str, what: str) -> dict[str, np.ndarray]:
    """Reads the state dict of a network out of a file.

    Args:
      path: the file.
      landmarks: see `find`.
      what: the network, for messages.

    Returns:
      Arrays by the network's own keys; without landmarks, those of the whole file.

    Raises:
      UserError: the file is damaged, or holds something else than tensors.
    """
    content = reader.read(path)
    if found := find(content, landmarks, path, what):
        return found.arrays
    return reader.state_dict(content, path, what)


def choose(candidates: Mapping[str, T], path: Path, what: str) -> T | None:
    """Chooses among networks of one kind by their names.

    Args:
      candidates: by place: names separated by dots.
      path: the file, for messages.
      what: the network, for messages.

    Returns:
      The one that is averaged over its training, or the only one; None where there is none. Warns where
      the only one has a name of those that are not averaged.

    Raises:
      UserError: there are several.
    """
    averaged = [place for place in candidates if AVERAGED.search(place)]
    places = averaged or list(candidates)
    if len(places) > 1:
        raise UserError(
            f"{path} holds several networks of the kind {what}: {', '.join(places[:8])}; expected one, or "
            "one that is named ema"
        )
    if not places:
        return None
    name = places[0].rpartition(".")[2]
    if not averaged and TRAINED.fullmatch(name):
        warnings.warn(
            f"{path} has {places[0]} alone, the {what} as it trained, where g_ema is its average: images "
            "may be worse",
            stacklevel=2,
        )
    return candidates[places[0]]


def _walk(content: Any) -> Iterator[tuple[tuple[str, ...], tuple[Mapping[str, Any], ...]]]:
    """All tables in a checkpoint: the names that lead to each; it, and those around it."""
    seen, waiting = set(), collections.deque([((), (content,))])
    while waiting:
        names, tables = waiting.popleft()
        # A small file can name one table very many times.
        if not isinstance(tables[0], Mapping) or id(tables[0]) in seen:
            continue
        seen.add(id(tables[0]))
        yield names, tables
        if len(names) < DEPTH:
            waiting.extend(((*names, str(k)), (x, *tables)) for k, x in tables[0].items())
