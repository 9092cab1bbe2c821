"""python main.py --config=configs/RECIPE.py[:variant] [--workdir=DIR] [--config.field=value ...]

Flags only: reads the config and hands it to its task. configs/default.py explains every field; results go to
runs/RECIPE unless --workdir says otherwise. Wrong input ends in one sentence and exit code 2.
"""

import importlib
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the results; runs/CONFIG by default.")


def main(arguments: list[str]) -> int:
    """Runs the task of the config that the arguments name.

    Args:
      arguments: the command line, with the program's name first.

    Returns:
      The exit code: 0, 2 after wrong input, or what the task says.
    """
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    try:
        rest = flags.FLAGS(arguments)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        return fail(error)
    if rest:
        return fail(f"unknown argument {rest[0]!r}; fields are set by --config.field=value")
    if CONFIG.value is None:
        return fail("--config is missing; for example --config=configs/nada_sketch.py")
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    if not Path(path).is_file():
        return fail(f"--config={path} does not exist; expected a file such as configs/default.py")

    from nada_jax.errors import UserError  # only now: importing JAX takes seconds

    name = Path(path).stem + (f"_{variant}" if variant else "")
    workdir = Path(WORKDIR.value or Path("runs") / name)
    try:
        task = importlib.import_module(f"nada_jax.tasks.{CONFIG.value.task}")
        return task.run(CONFIG.value, workdir)
    except UserError as error:
        return fail(error)


def fail(error: Exception | str) -> int:
    """One sentence on stderr, exit code 2."""
    text = str(error)
    if isinstance(error, AttributeError | KeyError):  # ml_collections: a field that is not there
        text = "no such config field: " + text.strip("'\"").replace("\\n", ". ").replace("\\'", "'")
    if "Traceback (most recent call last)" in text:  # ml_collections quotes that of a config file
        text = text.strip().splitlines()[-1].partition("Error: ")[2]
    print(f"error: {' '.join(text.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
