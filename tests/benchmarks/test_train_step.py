import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from simjax import nn

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_step.py"


@pytest.mark.slow
@pytest.mark.parametrize("with_torch", [True, False])
def test_numbers_are_written(tmp_path, with_torch):
    if with_torch:
        pytest.importorskip("torch")
    else:
        (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('not here', name='torch')\n")
    options = ["--small", "--cases", "dnn", "--runs", "3", "--no-memory", "--out", tmp_path, "--json", tmp_path / "n"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *options],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (case,) = json.loads((tmp_path / "n").read_text())
    (contest,) = json.loads((tmp_path / "train_step.json").read_text())["contests"]
    times = sorted(contest["contenders"]["simjax"]["seconds"])
    assert case["name"] == "dnn"
    assert case["simjax_ms"] == 1e3 * times[1]
    assert case["compile_s"] > 0
    if with_torch:
        assert case["ratio"] == pytest.approx(case["simjax_ms"] / case["torch_ms"])
        assert contest["agreement"]["value"] < 1e-4
    else:
        assert case["torch_ms"] is None
        assert case["ratio"] is None
    assert "| dnn | 8 images of 28x28x1 |" in (tmp_path / "train_step.md").read_text()


NETWORKS = {
    "modern": lambda: nn.SiameseCNN((28, 28, 1), widths=(4, 8), rngs=nnx.Rngs(0)),
    "classic": lambda: nn.SiameseCNN((28, 28, 1), variant="classic", rngs=nnx.Rngs(0)),
    "vit": lambda: nn.VisionTransformer((28, 28, 1), width=16, depth=2, rngs=nnx.Rngs(0)),
    "dnn": lambda: nn.DenseNetwork((28, 28, 1), widths=(32,), rngs=nnx.Rngs(0)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.slow
def test_networks_of_pytorch_are_the_same(name):
    torch = pytest.importorskip("torch")
    from benchmarks._torch import same_network

    network = NETWORKS[name]()
    images = np.random.default_rng(0).random((4, 28, 28, 1), np.float32)
    theirs = same_network(network)(torch.tensor(images).permute(0, 3, 1, 2)).detach().numpy()
    ours = nnx.jit(lambda network, x: network(x))(network, jnp.asarray(images))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_layer_without_counterpart_is_named():
    pytest.importorskip("torch")
    from benchmarks._torch import same_network

    with pytest.raises(TypeError, match="silu"):
        same_network(nnx.Sequential(nnx.silu))
