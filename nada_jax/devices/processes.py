"""The processes (hosts) of one run: how they meet, agree and write.

Every process runs the same program. What one alone may do, or what may fail on one alone, goes through `alone` and
`together`, so that all of them go on or none.
"""

import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from nada_jax import files
from nada_jax.errors import UserError, is_out_of_memory
from nada_jax.settings import Count, Section, Whole

AUTO = "auto"
PATIENCE = 120  # seconds that processes wait for each other to start
LONGEST = 1000  # bytes of a failure that the other processes are sent; arrays between processes have one size


class Distributed(Section, name="distributed"):
    """The processes of a run; `config.distributed`."""

    coordinator: str
    processes: Count
    process: Whole


def connect(distributed: Distributed) -> None:
    """Joins the processes of one run, before anything touches a device.

    Args:
      distributed: `coordinator` is host:port of process 0; "auto" asks Slurm, MPI, the TPU pod, ...; empty
        for one process, or for a TPU pod that names its hosts in the environment. `processes` is how many there
        are, `process` which one this is, from 0.

    Raises:
      UserError: the values do not fit together, or the processes do not meet within `PATIENCE`.
    """
    coordinator = distributed.coordinator
    processes, process = distributed.processes, distributed.process
    if coordinator not in ("", AUTO):
        _check_address(coordinator, processes, process)
        address = {"coordinator_address": coordinator, "num_processes": processes}
        _join(f"distributed.coordinator={coordinator!r}", **address, process_id=process)
    elif (processes, process) != (1, 0):
        raise UserError(
            f"distributed.processes is {processes} and distributed.process is {process}, but "
            f"distributed.coordinator is {coordinator!r}; expected host:port of process 0"
        )
    elif coordinator == AUTO or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        _join(f"distributed.coordinator={AUTO!r}")


def _check_address(coordinator: str, processes: int, process: int) -> None:
    port = int(match[1]) if (match := re.fullmatch(r"\S+:(\d{1,5})", coordinator)) else 0
    if not 0 < port < 2**16:
        raise UserError(
            f"distributed.coordinator is {coordinator!r}; expected host:port of process 0, or {AUTO!r}"
        )
    if processes < 2:
        raise UserError(
            f"distributed.processes is {processes}; expected at least 2 where "
            "distributed.coordinator is given"
        )
    if not 0 <= process < processes:
        raise UserError(
            f"distributed.process is {process}; expected 0..{processes - 1}, another one for each "
            "process"
        )
    if process == 0:
        try:
            socket.create_server(("", port)).close()  # JAX would end without a word
        except OSError as error:
            raise UserError(
                f"distributed.coordinator is {coordinator!r}, but process 0 cannot use port {port} "
                f"({error.strerror}); give another one to all processes"
            ) from error


def _join(what: str, **address: Any) -> None:
    # JAX's own watch for SIGTERM would swallow the signal while models load.
    jax.config.update("jax_enable_preemption_service", False)
    failures = []

    def initialize():
        try:
            # The process ends without a sentence when JAX's own timeout comes first.
            jax.distributed.initialize(**address, initialization_timeout=2 * PATIENCE)
        except Exception as error:  # of JAX, or of the cluster that it asks
            failures.append(error)

    # In a thread, because JAX cannot be interrupted while it waits for the other processes.
    thread = threading.Thread(target=initialize, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        raise UserError(
            f"{what}: the processes did not meet within {PATIENCE} s; expected each of them to be "
            "started, with its own number, and to reach process 0"
        )
    if failures:
        raise UserError(
            f"{what}: the processes cannot be joined ({failures[0]}); expected host:port of process 0, "
            f"or {AUTO!r} under Slurm, MPI or on a TPU pod"
        )


def require_same(settings: Mapping[str, Any]) -> None:
    """Makes sure that all processes were given the same settings; UserError on all if not."""
    if jax.process_count() == 1:
        return
    text = files.to_json(settings, sort_keys=True)
    # Of equal length on all processes, as what they exchange has to be.
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(digest)
    if others := np.flatnonzero((digests != digests[0]).any(axis=1)).tolist():
        raise UserError(
            f"process {others[0]} was started with another config than process 0; only "
            "distributed.process may differ"
        )


def together(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function on every process; where it fails on one, it fails on all.

    Args:
      function: what is called with `args`; it runs nothing that the processes compute together.

    Returns:
      What the function returns on this process.

    Raises:
      UserError, OSError or a lack of memory: of this process, or a UserError that says what another one raised.
    """
    if jax.process_count() == 1:
        return function(*args)
    result = failure = None
    try:
        result = function(*args)
    except Exception as error:
        if not (isinstance(error, UserError | OSError) or is_out_of_memory(error)):
            raise
        failure = error
    # Every process takes part in the exchange, whether it failed or not: the others would wait for it for ever.
    text = np.zeros(LONGEST, np.uint8)
    if failure is not None:
        message = (str(failure) or type(failure).__name__).encode()[:LONGEST]
        text[: len(message)] = np.frombuffer(message, np.uint8)
    texts = multihost_utils.process_allgather(text)
    if failure is not None:
        raise failure
    for process, text in enumerate(texts):
        if text.any():
            # The limit may have cut a character in two.
            message = bytes(text[text > 0]).decode(errors="ignore")
            raise UserError(f"process {process}: {message}")
    return result


def alone(function: Callable[..., Any], *args: Any) -> None:
    """Calls a function on process 0, while the others wait; where it fails, it fails on all."""
    together(function if jax.process_index() == 0 else lambda *_: None, *args)


def largest(value: int) -> int:
    """The largest of the values that the processes give."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())
