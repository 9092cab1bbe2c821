"""python main.py --config=configs/RECIPE.py[:variant] [--workdir=DIR] [--config.field=value ...]

Flags only: reads the config and hands it to its task. configs/default.py explains every field; results go to
runs/RECIPE unless --workdir says otherwise. Wrong input ends in one sentence and exit code 2.
"""

import importlib
import itertools
import logging
import os
import re
import sys
import warnings
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from nada_jax.command.mistakes import MISSING, explain
from nada_jax.command.streams import outlive_readers
from nada_jax.devices.huge_pages import restart_with_huge_pages

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the results; runs/CONFIG by default.")


def main(arguments: list[str]) -> int:
    """Runs the task of the config that the arguments name.

    Args:
      arguments: the command line, with the program's name first.

    Returns:
      The exit code: 0, 2 after wrong input, or what the task returns.
    """
    warnings.showwarning = warn
    # Python keeps bytes that are no text as halves of surrogate pairs.
    if broken := [x for x in arguments if re.search("[\ud800-\udfff]", x)]:
        encoding = sys.getfilesystemencoding()
        remedy = "" if encoding == "utf-8" else ", or PYTHONUTF8=1 where the terminal has UTF-8"
        return fail(f"{broken[0]!r} is not text; expected the encoding {encoding}{remedy}")
    # A shell leaves the ~ of --config=~/mine.py as it is.
    arguments = [
        f"--config={Path(x[9:]).expanduser()}" if x.startswith("--config=~/") else x
        for x in arguments
    ]
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    # What absl warns of is told below, in a sentence.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        rest = flags.FLAGS(arguments)[1:]
    except (Exception, SystemExit) as error:  # a config file is code, and may fail in any way
        return fail(explain(error, arguments) or error)
    for argument, following in itertools.pairwise(arguments):
        # absl takes the next flag for the value that is missing.
        name = argument.lstrip("-")
        known = argument.startswith("-") and name in flags.FLAGS
        if known and following.startswith("--") and not flags.FLAGS[name].boolean:
            return fail(f"{argument} has no value; expected {argument}=VALUE")
    if rest:
        return fail(f"unknown argument {rest[0]!r}; fields are set by --config.field=value")
    if not isinstance(CONFIG.value, ConfigDict) or "task" not in CONFIG.value:
        return fail(explain(None, arguments) or MISSING)
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")

    tasks = sorted(p.stem for p in (Path(__file__).parent / "nada_jax" / "tasks").glob("[!_]*.py"))
    if CONFIG.value.task not in tasks:
        return fail(f"task is {CONFIG.value.task!r}; expected one of {', '.join(tasks)}")
    name = Path(path).stem + (f"_{variant}" if variant else "")
    workdir = Path(WORKDIR.value or Path("runs") / name)
    # transformers would import PyTorch wherever it is installed, for two seconds; no task needs it there.
    os.environ.setdefault("USE_TORCH", "0")
    try:
        # Only now: importing JAX takes seconds.
        from nada_jax.devices import compilation
        from nada_jax.errors import UserError, enough_memory

        task = importlib.import_module(f"nada_jax.tasks.{CONFIG.value.task}")
    except KeyboardInterrupt:
        return 130
    compilation.prepare()
    remedy = getattr(task, "MEMORY", "close what else uses it")
    try:
        with enough_memory(remedy):
            return task.run(CONFIG.value, workdir)
    except (UserError, OSError) as error:
        return fail(error)
    except Exception:
        # Told only now: several processes have to find each other before JAX looks for devices.
        if absent := compilation.no_device():
            return fail(absent)
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def warn(message: Warning | str, *_, **__) -> None:
    """One line on stderr, without the place in the code."""
    print(f"warning: {message}", file=sys.stderr)


def fail(error: BaseException | str) -> int:
    """One sentence on stderr, exit code 2."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    restart_with_huge_pages()
    outlive_readers()
    sys.exit(main(sys.argv))
