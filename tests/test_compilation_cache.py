"""The cache of compiled functions on disk."""

import jax
import pytest

from simjax import enable_compilation_cache


def test_a_folder_that_the_user_chose_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        for chosen, expected in (("chosen", "chosen"), (None, str(tmp_path / "simjax" / "xla"))):
            jax.config.update("jax_compilation_cache_dir", chosen)
            enable_compilation_cache()
            assert jax.config.values["jax_compilation_cache_dir"] == expected
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
