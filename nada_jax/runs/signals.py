"""How a run is asked to end: Ctrl-C and SIGTERM."""

import signal
import threading

import jax

from nada_jax.devices import processes

EXIT = 128  # plus the number of the signal, as shells count


class Signals:
    """Within the block, the first Ctrl-C or SIGTERM only asks the loop to end; a second one ends it."""

    def __init__(self):
        self.received = 0
        self._former = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # Python allows no other
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def agreed(self, meeting: bool) -> int:
        """The signal that ends the run, or 0.

        Args:
          meeting: whether the processes exchange their signals at this step. All of them then stop at the same
            step; one process alone needs no meeting.
        """
        if jax.process_count() == 1:
            return self.received
        return processes.largest(self.received) if meeting else 0

    def _receive(self, number, _):
        if self.received:
            raise KeyboardInterrupt
        self.received = number
