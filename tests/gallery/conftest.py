"""An encoder with random weights, empty galleries, and processes that write to them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from simjax import nn
from simjax.encoder import Encoder, EncoderConfig, Preprocessing
from simjax.gallery import Gallery
from tests.gallery.servers import Milvus, Postgres

SIZE = 5


def build_encoder(size: int = SIZE, measure: str = "cosine", seed: int = 0, **options) -> Encoder:
    """A linear function of 8x8 grey pixels with random weights."""
    config = EncoderConfig("dnn", {"widths": []}, size, Preprocessing((8, 8, 1), (0.5,), (0.5,)), measure)
    network = nn.DenseNetwork((8, 8, 1), widths=(), embedding_size=size, rngs=nnx.Rngs(seed))
    return Encoder([network], config, name=f"random-{seed}", **options)


@pytest.fixture(scope="package")
def encoder() -> Encoder:
    return build_encoder()


@pytest.fixture
def gallery(encoder, tmp_path):
    with Gallery.create(tmp_path / "gallery", encoder) as found:
        yield found


@pytest.fixture
def rows(random) -> np.ndarray:
    return random.normal(size=(13, SIZE)).astype(np.float32)


class Writers:
    """Starts tasks of `tests.gallery.writers` in processes of their own."""

    def __init__(self, process: subprocess.Popen, folder: Path):
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self.stdout, self.folder = process.stdin, process.stdout, folder
        self.outputs: dict[int, Path] = {}

    def start(self, task: str, *arguments: object) -> int:
        output = self.folder / f"{len(self.outputs)}.json"
        self.stdin.write(json.dumps([task, *map(str, [output, *arguments])]) + "\n")
        self.stdin.flush()
        number = int(self.stdout.readline())
        self.outputs[number] = output
        return number

    def wait(self, number: int) -> None:
        for _ in range(6000):
            if not self.is_alive(number):
                return
            time.sleep(0.01)
        raise TimeoutError(f"process {number} did not end")

    def is_alive(self, number: int) -> bool:
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
        self.wait(number)

    def result(self, number: int):
        self.wait(number)
        return json.loads(self.outputs[number].read_text())


@pytest.fixture(scope="module")
def writers(tmp_path_factory):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-m", "tests.gallery.writers"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        found = Writers(process, tmp_path_factory.mktemp("outputs"))
        yield found
        for number in found.outputs:  # a test that failed may have left some
            found.kill(number)
        found.stdin.close()


@pytest.fixture
def path(gallery):
    gallery.close()
    return Path(gallery.address)


@pytest.fixture(scope="module")
def milvus():
    """A server of milvus-lite for all tests of a file."""
    server = Milvus()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server():
    """A server of PostgreSQL for all tests of a file."""
    found = Postgres()
    yield found
    found.stop()


@pytest.fixture
def postgres(server):
    """A server with an empty database."""
    server.use_new_database()
    return server
