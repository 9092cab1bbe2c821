"""How a run is asked to end."""

import os
import signal
import time

import pytest

from nada_jax.runs.signals import Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_says_so_and_the_second_ends(number, capsys):
    former = signal.getsignal(number), signal.set_wakeup_fd(-1)
    with Signals() as signals:
        os.kill(os.getpid(), number)
        assert signals.agreed(meeting=False) == number
        said, end = "", time.monotonic() + 10
        while "\n" not in said.strip("\n") and not said.endswith("checkpoint\n"):
            said += capsys.readouterr().err
            assert time.monotonic() < end
        name = signal.Signals(number).name
        assert said == f"\n{name}: the run ends after the present step, with a checkpoint\n"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(1)
    assert capsys.readouterr().err == ""
    assert (signal.getsignal(number), signal.set_wakeup_fd(-1)) == former


def test_under_nohup_a_run_outlives_its_terminal():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.agreed(meeting=False) == 0
    finally:
        signal.signal(signal.SIGHUP, former)
