"""What the compiler keeps from run to run."""

import jax

from nada_jax.weights import cache

LIMIT = 4 * 2**30  # bytes; what was not used for longest goes first


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
