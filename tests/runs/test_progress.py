"""The progress of long work."""

from nada_jax.runs.progress import Progress


def test_plain_lines_come_every_so_many_steps(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with Progress(total=7, done=0, every=3) as progress:
        for steps in (1, 1, 2, 2, 1):
            progress.advance(steps, loss=0.5, ms=2000.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["4/7", "6/7", "7/7"]
    assert lines[0] == "step 4/7  loss 0.5000  2000 ms/step  0:06 left"


def test_a_terminal_gets_a_bar_with_loss_and_time(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    with Progress(total=2, done=0, every=1) as progress:
        progress.say("hello")
        progress.advance(2, loss=0.25, ms=12.0)
    out, bar = capsys.readouterr()
    assert "hello" in out
    assert "2/2" in bar and "loss 0.2500, 12 ms/step" in bar and "left" in bar


def test_steps_of_an_earlier_run_are_skipped_and_there_need_not_be_a_loss(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with Progress(total=6, done=0, every=2) as progress:
        progress.skip(4)
        progress.advance(2, loss=None, ms=1000.0)
    assert capsys.readouterr().out == "step 6/6  1000 ms/step  0:00 left\n"
