"""How a run is asked to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed."""

import signal
import socket
import sys
import threading

import jax

from nada_jax.devices import processes

EXIT = 128  # plus the number of the signal, as shells count
NAMES = "SIGINT", "SIGTERM", "SIGHUP"  # Windows lacks the last


class Signals:
    """Within the block, the first signal only asks the loop to end; a second one ends it."""

    def __init__(self):
        self.received = 0
        self._former = {}
        self._bell: _Bell | None = None

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():  # Python allows no other
            return self
        for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
            # Under nohup, a run is meant to outlive its terminal.
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                self._former[number] = signal.signal(number, self._receive)
        self._bell = _Bell(set(self._former))
        return self

    def __exit__(self, *_) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

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


class _Bell:
    """Says at once that the first signal has come.

    Python calls handlers between two of its own instructions, and XLA may compile for minutes within one. What writes
    the number of a signal into a socket does not wait for that, and a thread reads it there.
    """

    def __init__(self, numbers: set[int]):
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._numbers, self._several = numbers, jax.process_count() > 1
        self._former = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        while number := self._read.recv(1):
            if number[0] in self._numbers:
                name = signal.Signals(number[0]).name
                # Several processes stop at the same step, of which they talk at times.
                when = "soon" if self._several else "after the present step"
                line = f"\n{name}: the run ends {when}, with a checkpoint\n"
                print(line, end="", file=sys.stderr, flush=True)
                return

    def close(self) -> None:
        """Gives signals back to whom they went before."""
        signal.set_wakeup_fd(self._former)
        self._write.close()  # ends the thread
        self._thread.join()
        self._read.close()
