"""The command starts again with huge pages where Linux gives them on request only."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, pathlib, sys
from nada_jax.devices import huge_pages
huge_pages.SETTING = pathlib.Path(sys.argv[1])
huge_pages.restart_with_huge_pages()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("system", "given", "expected"),
    [
        ("always [madvise] never", None, "glibc.malloc.hugetlb=1"),
        ("always [madvise] never", "a=b", "a=b"),
        ("[always] madvise never", None, "None"),
        (None, None, "None"),
    ],
)
def test_the_command_starts_again_where_huge_pages_must_be_asked_for(
    tmp_path, system, given, expected
):
    if system:
        (tmp_path / "enabled").write_text(system)
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    if given:
        environment["GLIBC_TUNABLES"] = given
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / "enabled"), "a b", "--c=d"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"{expected} ['a b', '--c=d']\n"
