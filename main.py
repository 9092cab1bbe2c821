"""python main.py --config=configs/RECIPE.py[:variant] [--workdir=DIR] [--config.field=value ...]

Flags only: reads the config and hands it to its task. configs/default.py explains every field; results go to
runs/RECIPE unless --workdir says otherwise. Wrong input ends in one sentence and exit code 2.
"""

import difflib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from nada_jax.devices.huge_pages import restart_with_huge_pages
from nada_jax.streams import outlive_readers

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
MISSING = "--config is missing; for example --config=configs/nada_sketch.py"
ABSENT = "--config={} does not exist; expected a file such as configs/default.py"
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
    try:
        rest = flags.FLAGS(arguments)[1:]
    except Exception as error:  # a config file is code, and may fail in any way
        return fail(explain(error, arguments) or error)
    if rest:
        return fail(f"unknown argument {rest[0]!r}; fields are set by --config.field=value")
    if CONFIG.value is None:
        return fail(MISSING)
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    if not Path(path).is_file():
        return fail(ABSENT.format(path))

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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def explain(error: Exception, arguments: list[str]) -> str:
    """What is wrong with the fields that the arguments set.

    Args:
      error: what absl or ml_collections said.
      arguments: the command line.

    Returns:
      A sentence, or "" where the fields are not to blame.
    """
    if not (given := re.search("\0--?config[=\0]([^\0]*)", "\0".join(arguments))):
        return MISSING
    path = given[1].partition(":")[0]
    if not Path(path).is_file():
        return ABSENT.format(path)
    try:
        config = flags.FLAGS["config"].parser.parse(given[1]).to_dict()
    except Exception:  # it fails itself, which `error` says
        return ""
    values = dict(walk(config))
    named = [re.match(r"--?(?:no)?config\.([^=]+)", x) for x in arguments]
    unknown = [f"config.{match[1]}" for match in named if match and match[1] not in values]
    if match := re.match(r"Unknown command line flag '(.+?)'", str(error)):
        unknown.append(match[1])
    if unknown:
        known = ["workdir", *(f"config.{field}" for field in values)]
        # "--steps=5" and "--config.lr=1": the field is right, and its beginning is not.
        ending = unknown[0].rpartition(".")[2]
        same = [field for field in known if field.rpartition(".")[2] == ending]
        near = difflib.get_close_matches(unknown[0], same or known, 1, 0 if same else 0.7)
        if not near:
            endings = {field.rpartition(".")[2]: field for field in reversed(known)}
            near = [endings[x] for x in difflib.get_close_matches(ending, endings, 1, 0.7)]
        return f"there is no --{unknown[0]}" + (f"; did you mean --{near[0]}?" if near else "")
    if match := re.match(r"flag --config\.(\S+?)=(.*?): ", str(error), re.DOTALL):
        field, value = match.groups()
        if isinstance(values[field], dict):
            return f"{field} is a section; expected one of its fields, as in --config.{field}.{next(iter(values[field]))}"
        words = {int: "a whole number", float: "a number", bool: "True or False"}
        expected = words.get(type(values[field]), f"a value like {values[field]!r}")
        return f"{field} is {value!r}; expected {expected}"
    return ""


def walk(config: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """All fields and sections of a config by flat name."""
    for name, value in config.items():
        yield prefix + name, value
        if isinstance(value, dict):
            yield from walk(value, f"{prefix}{name}.")


def warn(message: Warning | str, *_, **__) -> None:
    """One line on stderr, without the place in the code."""
    print(f"warning: {message}", file=sys.stderr)


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
    restart_with_huge_pages()
    outlive_readers()
    sys.exit(main(sys.argv))
