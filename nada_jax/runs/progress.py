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

    def advance(self, steps: int, loss: float | None, ms: float) -> None:
        """Reports `steps` more steps, with the last loss, where there is one, and the milliseconds of one step."""
        before, self.step = self.step, self.step + steps
        said = [] if loss is None else [f"loss {loss:.4f}"]
        said.append(f"{ms:.0f} ms/step")
        if self.bar is not None:
            self.bar.set_postfix_str(", ".join(said), refresh=False)
            self.bar.update(steps)
        elif self.silent:
            return
        elif self.step // self.every > before // self.every or self.step == self.total:
            left = (self.total - self.step) * ms / 1000
            print(
                f"step {self.step}/{self.total}  {'  '.join(said)}  {int(left // 60)}:{int(left % 60):02d} left",
                flush=True,
            )

    def skip(self, steps: int) -> None:
        """Counts steps that an earlier run has taken."""
        self.step += steps
        if self.bar is not None:
            self.bar.update(steps)

    def expect(self, total: int) -> None:
        """Sets the steps of the whole run anew, where they turn out to be more or fewer."""
        self.total = total
        if self.bar is not None and self.bar.total != total:
            self.bar.total = total
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
