"""What a jitted function costs, and what the device could do at best.

Times are wall-clock times of calls that are waited for. FLOPs and bytes are XLA's own counts; see `costs`.
"""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

CEILING_SECONDS = 2  # spent on timing one ceiling


def milliseconds(
    call: Callable[[Any], Any],
    carry: Any = None,
    *,
    steps: int,
    warmup: int = 2,
    deadline: float = math.inf,
) -> list[float]:
    """Times carry = call(carry), over and over; each call may thus donate what it was given.

    Args:
      call: a compiled function.
      carry: its first argument.
      steps: timed calls, at least 1.
      warmup: calls before them.
      deadline: in seconds of `time.perf_counter`; no call but the first timed one starts after it.

    Returns:
      Milliseconds of each timed call.
    """
    times: list[float] = []
    for i in range(warmup + steps):
        if times and time.perf_counter() > deadline:
            break
        clock = time.perf_counter()
        carry = jax.block_until_ready(call(carry))  # or the time of dispatching would be measured
        if i >= warmup:
            times.append(1000 * (time.perf_counter() - clock))
    return times


def summary(times: list[float]) -> dict[str, float]:
    """Number, median and smallest of some milliseconds, and the spread of the middle 80 %."""
    p10, median, p90 = np.percentile(times, [10, 50, 90]).tolist()
    figures = {"steps": len(times), "ms": median, "ms_min": min(times)}
    return figures | {"ms_p10": p10, "ms_p90": p90, "ms_spread": p90 - p10}


def compile_twice(
    make: Callable[[], Callable[..., Any]], *args: Any, **options: Any
) -> tuple[jax.stages.Lowered, jax.stages.Compiled, dict[str, float | None]]:
    """Compiles a function without, and then with, an entry in JAX's persistent cache.

    The cache is a fresh temporary directory. The process itself is as warm as it is: what was traced
    before makes tracing quicker, and GPU kernels that were chosen before in it are not chosen again.

    Args:
      make: gives the function; a new one each time, or else JAX would remember it.
      args: arrays or their shapes.
      options: of `jax.jit`.

    Returns:
      The function lowered and compiled, and seconds: trace_s, lower_s, compile_cold_s and
      compile_cached_s; the last is None where the backend cannot store what it compiled.
    """
    seconds: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory(prefix="nada_jax_") as directory, _cache_in(directory):
        function = jax.jit(make(), **options)
        clocks = [time.perf_counter()]
        traced = function.trace(*args)
        clocks.append(time.perf_counter())
        lowered = traced.lower()
        clocks.append(time.perf_counter())
        compiled = lowered.compile()
        clocks.append(time.perf_counter())
        names = ("trace_s", "lower_s", "compile_cold_s")
        seconds |= zip(names, np.diff(clocks).tolist(), strict=True)
        seconds["compile_cached_s"] = None
        if any(path.is_file() for path in Path(directory).iterdir()):
            again = jax.jit(make(), **options).lower(*args)
            clock = time.perf_counter()
            again.compile()
            seconds["compile_cached_s"] = time.perf_counter() - clock
    return lowered, compiled, seconds


@contextlib.contextmanager
def _cache_in(directory: str) -> Iterator[None]:
    """Within the block, JAX's persistent cache is in `directory` and takes everything."""
    settings = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": directory,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_compilation_cache_max_size": -1,  # with a limit, its lock file would pass for an entry
    }
    former = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # or JAX keeps to the directory that it used first
        yield
    finally:
        for name, value in former.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def costs(lowered: jax.stages.Lowered, compiled: jax.stages.Compiled) -> dict[str, float | None]:
    """FLOPs, bytes and memory of one call, by XLA's analyses.

    XLA counts the optimised module instruction by instruction: the bytes that each fusion reads and writes,
    whether from memory or from a cache, and nothing at all for calls into libraries (cuDNN, cuBLAS, oneDNN).
    So bytes may be too many where caches are large, and too few where flops_compiled is far below
    flops_lowered, the count before optimisation, which sees every product (and nothing that is unused,
    since JAX drops that before). What is in a loop, as the selection with low_memory, counts once; what is
    computed again for want of memory counts again.

    Returns:
      flops_compiled, flops_lowered, and flops, the larger; bytes; memory_bytes: arguments, outputs and
      temporaries, without what outputs take over from donated arguments. None where the backend does not
      report them.
    """
    after, before = _analysis(compiled.cost_analysis), _analysis(lowered.cost_analysis)
    counts = [analysis.get("flops") for analysis in (after, before)]
    memory = _reported(compiled.memory_analysis)
    return {
        "flops": max((count for count in counts if count is not None), default=None),
        "flops_compiled": counts[0],
        "flops_lowered": counts[1],
        "bytes": after.get("bytes accessed"),
        "memory_bytes": memory
        and memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes,
    }


def _analysis(method: Callable[[], Any]) -> dict[str, float]:
    """The result of a cost analysis; some versions of JAX put it into a list."""
    found = _reported(method)
    return (found[0] if isinstance(found, list) and found else found) or {}


def _reported(method: Callable[[], Any]) -> Any:
    """The result of a method, or None where the backend does not implement it."""
    try:
        return method()
    except NotImplementedError:
        return None


def device_peak() -> int | None:
    """The most bytes that this process ever held on the device at once, where the device reports it."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def peak_flops(precision: str) -> float:
    """FLOP/s of a large matrix product of random numbers, the best of its runs.

    Its arithmetic is JAX's default for the precision, as is that of the networks: TF32 for float32 on a GPU.
    """
    # Large enough to keep all cores busy, small enough for a second of a CPU.
    side = 2048 if jax.default_backend() == "cpu" else 8192
    a, b = jax.random.normal(jax.random.key(0), (2, side, side), precision)
    product = jax.jit(jnp.matmul)
    return 2 * side**3 / _best_seconds(lambda _: product(a, b))


def bandwidth() -> float:
    """Bytes per second, read and written, of a pass over a large array, the best of its runs."""
    # Far larger than any cache.
    size = 2**26 if jax.default_backend() == "cpu" else 2**28
    x = jax.random.normal(jax.random.key(0), (size,))
    moved = 2 * x.nbytes
    # Donated, so that fresh pages of a CPU's memory are not counted against it.
    return moved / _best_seconds(jax.jit(lambda x: x + 1, donate_argnums=0), x)


def _best_seconds(call: Callable[[Any], Any], carry: Any = None) -> float:
    deadline = time.perf_counter() + CEILING_SECONDS
    return min(milliseconds(call, carry, steps=20, deadline=deadline)) / 1000


def roofline(flops: float, bytes_: float, peak: float, rate: float) -> tuple[float, str]:
    """The least time that work can take on a device (Williams et al. 2009).

    Args:
      flops, bytes_: of the work.
      peak: FLOP/s.
      rate: bytes/s.

    Returns:
      Milliseconds, and which of the two bounds it: "compute" or "memory".
    """
    return max((1000 * flops / peak, "compute"), (1000 * bytes_ / rate, "memory"))
