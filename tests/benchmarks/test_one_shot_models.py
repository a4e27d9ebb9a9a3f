"""The accuracy of one-shot tasks is that of all tasks, counted one by one."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import one_shot_models


def test_the_accuracy_over_all_tasks_is_counted(tmp_path: Path, random: np.random.Generator, monkeypatch):
    characters, ways = [f"c{i}" for i in range(7)], 3
    monkeypatch.setattr(one_shot_models, "WAYS", ways)
    for part, fonts in (("gallery", ["a"]), ("probes", ["b", "c"])):
        for name in characters:
            (tmp_path / part / name).mkdir(parents=True)
            for font in fonts:
                Image.new("L", (2, 2)).save(tmp_path / part / name / f"{font}.png")
    scores = random.normal(size=(14, 7)) + np.repeat(np.eye(7), 2, axis=0)
    measure = SimpleNamespace(higher_is_closer=True)
    encoder = SimpleNamespace(similarity=lambda probes, gallery: scores, measure=measure)
    found = one_shot_models.one_shot_accuracy(encoder, tmp_path)

    right = [
        scores[probe, own] > scores[probe, list(others)].max()
        for probe, own in enumerate(np.repeat(np.arange(7), 2))
        for others in itertools.combinations([i for i in range(7) if i != own], ways - 1)
    ]
    assert found.value == pytest.approx(np.mean(right))
    assert 0 < found.value < 1
    assert len(found.identities) == 7
