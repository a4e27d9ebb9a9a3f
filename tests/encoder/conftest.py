"""A trained run whose encoder the tests load and use."""

from pathlib import Path

import pytest

from simjax.train import train
from simjax.train._settings import from_dict


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "vit"
    settings = {"model": "vit", "steps": 60, "vit": {"width": 16, "depth": 2, "heads": 2}, "embedding_size": 8}
    train(from_dict(settings), out)
    return out
