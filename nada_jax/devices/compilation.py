"""How XLA compiles, and what it keeps from run to run."""

import os

import jax

from nada_jax.weights.registry import cache

LIMIT = 4 * 2**30  # bytes; what was not used for longest goes first
FLAGS = (
    # The library that XLA's CPU back end would otherwise give convolutions, products and sums to is up to three times
    # slower at the convolutions of StyleGAN2 than XLA's own.
    "--xla_cpu_experimental_ynn_fusion_type=",
    # On GPUs, products by cuBLAS instead of Triton, whose kernels XLA generates and times by the dozen for each
    # product. On an H100 the step of 1024 pixels then compiled in 49 s and not in 55, and took 21.1 ms and not 21.5.
    "--xla_gpu_enable_triton_gemm=false",
)


def prepare() -> None:
    """Sets how XLA compiles in this process; to be called before JAX first computes."""
    set_flags()
    keep_compiled()


def set_flags() -> None:
    """Adds `FLAGS` to $XLA_FLAGS; what the user set there stays."""
    given = os.environ.get("XLA_FLAGS", "")
    if given.strip() and not given.lstrip().startswith("-"):
        return  # the name of a file with flags
    # By name: the user's may have another value.
    names = {flag.partition("=")[0] for flag in given.split()}
    ours = [flag for flag in FLAGS if flag.partition("=")[0] not in names]
    os.environ["XLA_FLAGS"] = " ".join([given, *ours]).strip()


def keep_compiled() -> None:
    """Lets JAX keep what it compiles in the user's cache directory, so that the next run starts faster.

    $JAX_COMPILATION_CACHE_DIR names another place. Where neither can be written, nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    directory = cache() / "compiled"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_compilation_cache_max_size", LIMIT)


def no_device() -> str:
    """Why JAX can compute nowhere, in a sentence; "" where it can."""
    try:
        jax.devices()
    except Exception as error:  # a RuntimeError, or an assertion without a word
        asked = os.environ.get("JAX_PLATFORMS", "")
        why = f" ({str(error).splitlines()[0]})" if str(error) else ""
        return (
            f"JAX_PLATFORMS is {asked!r}, and JAX finds no such device{why}; unset it, or set "
            "JAX_PLATFORMS=cpu"
        )
    return ""
