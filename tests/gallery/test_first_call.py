"""The first identification in a new process, where nothing is traced yet."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from simjax import Gallery, load_encoder

ADD_AND_IDENTIFY = """
import json, sys
import jax
import numpy as np
from simjax import Gallery, enable_compilation_cache

enable_compilation_cache()
image = np.load(sys.argv[2])
gallery = Gallery.open(sys.argv[1])
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
ids = gallery.add([image], "new")
result = gallery.identify([image])[0]
compiled = events.count("/jax/compilation_cache/cache_misses")
loaded = events.count("/jax/compilation_cache/cache_hits")
print(json.dumps({"compiled": compiled, "loaded": loaded, "closest": result.closest}))
gallery.remove(ids)
"""


@pytest.mark.slow
def test_a_later_process_finds_a_new_identity_without_compiling(tmp_path, random):
    """`simjax.enable_compilation_cache` stores all that the first process compiles."""
    images = random.integers(0, 256, (1_601, 32, 32), np.uint8)
    with Gallery.create(tmp_path / "gallery", load_encoder("glyphs-cnn")) as gallery:
        gallery.add(list(images[:100]), [f"identity {i}" for i in range(100)])
        gallery.calibrate(list(images[100:1_600]), [f"calibration {i // 15}" for i in range(1_500)])
    np.save(tmp_path / "new.npy", images[-1])
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", ADD_AND_IDENTIFY, str(tmp_path / "gallery"), str(tmp_path / "new.npy")]
    processes = []
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        processes.append(json.loads(done.stdout))
    assert {process["closest"] for process in processes} == {"new"}
    first, second = processes
    assert first["compiled"] > 0
    assert (second["compiled"], second["loaded"]) == (0, first["compiled"])
