"""The progress of long work: a bar on a terminal, plain lines elsewhere."""

import sys

from tqdm import tqdm


class Progress:
    """A bar with loss, ms per step and time left on a terminal; plain lines elsewhere.

    Args:
      total: steps of the whole run.
      done: steps that an earlier run has done.
      every: plain lines come this often.
      silent: prints nothing; of several processes one prints.
    """

    def __init__(self, total: int, done: int, every: int, silent: bool = False):
        self.total, self.step, self.every, self.silent = total, done, every, silent
        self.bar = None
        if sys.stderr.isatty() and not silent:
            form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]"
            self.bar = tqdm(total=total, initial=done, unit="step", bar_format=form)

    def advance(self, steps: int, loss: float, ms: float) -> None:
        """Reports `steps` more steps, with the last loss and the milliseconds of one step."""
        before, self.step = self.step, self.step + steps
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}, {ms:.0f} ms/step", refresh=False)
            self.bar.update(steps)
        elif self.silent:
            return
        elif self.step // self.every > before // self.every or self.step == self.total:
            left = (self.total - self.step) * ms / 1000
            print(
                f"step {self.step}/{self.total}  loss {loss:.4f}  {ms:.0f} ms/step  "
                f"{int(left // 60)}:{int(left % 60):02d} left",
                flush=True,
            )

    def shorten(self, steps: int) -> None:
        """Takes steps off the total that need not be taken after all."""
        self.total -= steps
        if self.bar is not None and steps:
            self.bar.total = self.total
            self.bar.refresh()

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        if self.bar is not None:
            tqdm.write(line)
        elif not self.silent:
            print(line, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        """Leaves the terminal as it was."""
        if self.bar is not None:
            self.bar.close()
