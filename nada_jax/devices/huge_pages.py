"""Huge pages of memory for XLA on CPU; to be set up before anything heavy is imported."""

import os
import sys
from pathlib import Path

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLES = "glibc.malloc.hugetlb=1"  # glibc then asks Linux for huge pages whenever it takes memory


def restart_with_huge_pages() -> None:
    """Starts this process again with huge pages, where Linux gives them on request only.

    On CPU XLA takes fresh memory from Linux in every step; in small pages that costs a fifth of the time of a step of
    the embedded models. glibc reads its tunables when a process starts, hence the restart. What the user set in
    $GLIBC_TUNABLES stays.
    """
    try:
        on_request = "[madvise]" in SETTING.read_text(encoding="utf-8")
    except OSError:  # not Linux, or no such setting
        return
    if on_request and "GLIBC_TUNABLES" not in os.environ:
        os.execve(sys.executable, sys.orig_argv, os.environ | {"GLIBC_TUNABLES": TUNABLES})
