"""python main.py --config=configs/RECIPE.py[:variant] [--workdir=DIR] [--config.field=value ...]

Flags only: reads the config and hands it to its task. Wrong input ends in one sentence and exit code 2.
"""

import importlib
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the results; runs/CONFIG by default.")


def main(arguments: list[str]) -> int:
    from nada_jax.errors import UserError

    try:
        flags.FLAGS(arguments)
        if CONFIG.value is None:
            raise UserError("--config is missing; for example --config=configs/nada_sketch.py")
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        return fail(error)
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    name = Path(path).stem + (f"_{variant}" if variant else "")
    workdir = Path(WORKDIR.value or Path("runs") / name)
    try:
        task = importlib.import_module(f"nada_jax.tasks.{CONFIG.value.task}")
        return task.run(CONFIG.value, workdir) or 0
    except UserError as error:
        return fail(error)


def fail(error: Exception) -> int:
    """One sentence on stderr, exit code 2."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    print(f"error: {' '.join(str(text).split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
