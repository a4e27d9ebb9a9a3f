"""The cache of compiled functions on disk, which shortens the first call of each function in a new process."""

import warnings

from simjax._files import user_cache


def enable_compilation_cache() -> None:
    """Let JAX store compiled functions in the user's cache folder, and load them from there in later processes.

    The first calls of a process otherwise compile, which takes a second or more for each encoder and each search. The
    folder is `jax.config.jax_compilation_cache_dir`, or `$JAX_COMPILATION_CACHE_DIR`, if one of them is set, else `xla`
    in the cache folder of simjax. Every command of simjax calls this function. It changes the configuration of JAX for
    the whole process.
    """
    import jax

    cache = user_cache()
    if cache is not None and not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # JAX warns once per function if the disk is full or read-only, which only costs time.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
