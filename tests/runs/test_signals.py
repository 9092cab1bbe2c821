"""How a run is asked to end."""

import io
import os
import signal
import sys
import time

import pytest

from nada_jax.runs.signals import Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_says_so_and_the_second_ends(number, monkeypatch):
    # Reading what pytest captures would lose what another thread writes meanwhile.
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    former = signal.getsignal(number), signal.set_wakeup_fd(-1)
    with Signals() as signals:
        os.kill(os.getpid(), number)
        assert signals.agreed(meeting=False) == number
        end = time.monotonic() + 10
        while not written.getvalue().endswith("checkpoint\n"):
            time.sleep(0.01)
            assert time.monotonic() < end
        name = signal.Signals(number).name
        said = f"\n{name}: the run ends after the present step, with a checkpoint\n"
        assert written.getvalue() == said
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(1)
    assert written.getvalue() == said
    assert (signal.getsignal(number), signal.set_wakeup_fd(-1)) == former


def test_under_nohup_a_run_outlives_its_terminal():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.agreed(meeting=False) == 0
    finally:
        signal.signal(signal.SIGHUP, former)
