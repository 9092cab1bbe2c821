"""Models of the page: loaded when they are first asked for, and shared by all visitors."""

import threading
from collections.abc import Callable, Hashable
from typing import Any

from nada_jax.models.stylegan2 import Generator
from nada_jax.weights import domains, loading

MOST = 12  # domains held at once, so that the memory is bounded whatever is chosen


class Models:
    """Holds what was loaded; equal questions get the same object, so that what is compiled for it is found again.

    Args:
      weights: of the source generator: a name or a file.
      precision: in which generators compute.
    """

    def __init__(self, weights: str, precision: str):
        self.weights, self.precision = weights, precision
        self._held: dict[Hashable, Any] = {}
        self._domains: dict[str, Generator] = {}  # the last asked for at the end
        self._lock = threading.RLock()

    def get(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """What `load` returns, loaded once for each key; for what is as many as the config names, not visitors."""
        with self._lock:
            if key not in self._held:
                self._held[key] = load()
            return self._held[key]

    def source(self) -> Generator:
        """The source generator."""
        return self.get(
            "source", lambda: loading.load_generator(self.weights, precision=self.precision)
        )

    def domain(self, given: str) -> Generator:
        """An adapted generator.

        Args:
          given: what `domains.find` takes, such as a value of `Site.presets`.

        Raises:
          UserError: there is none, or it does not fit the source.
        """
        with self._lock:
            if given not in self._domains:
                loaded = domains.load((given,), self.source(), self.weights, field="presets")
                ((generator, _),) = loaded.values()
                self._domains[given] = generator
            generator = self._domains[given] = self._domains.pop(given)
            while len(self._domains) > MOST:
                del self._domains[next(iter(self._domains))]
            return generator
