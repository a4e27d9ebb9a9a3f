"""Every loss and miner refuses NaN and numbers out of range before it computes anything."""

import inspect

import jax
import numpy as np
import pytest

from simjax import losses, mining
from simjax.core import InputError

TESTED_ELSEWHERE = {"hard_negatives"}
ANY_NUMBER = {  # in units of a measure that may be a similarity, so negative numbers are valid
    "generalized_lifted_structure_loss": {"positive_margin", "negative_margin"},
    "lifted_structure_loss": {"positive_margin", "negative_margin"},
    "margin_loss": {"beta"},
    "multi_similarity_loss": {"base"},
    "threshold_consistent_margin_loss": {"positive_margin", "negative_margin"},
    "pair_margin": {"positive_margin", "negative_margin"},
    "triplet_margin": {"margin"},
}
ARGUMENTS = {
    "embeddings": np.eye(4),
    "labels": np.array([0, 0, 1, 1]),
    "key": jax.random.key(0),
    "proxies": np.ones((2, 4)),
    "teacher": np.eye(4),
    "scores": np.zeros((4, 4)),
}
OF_CENTERS = {"sub_center_arcface_loss", "sub_center_outliers", "soft_triple_loss"}


def numbers():
    for package in (losses, mining):
        for name, function in vars(package).items():
            if inspect.isfunction(function) and name not in TESTED_ELSEWHERE:
                parameters = inspect.signature(function).parameters
                if "labels" in parameters and "embeddings" in parameters:
                    for parameter in parameters.values():
                        number = type(parameter.default) in (int, float) or parameter.name == "hardness"
                        if number and parameter.name != "chunk_size":
                            yield pytest.param(function, parameter.name, id=f"{name}-{parameter.name}")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("function", "parameter"), [*numbers()])
def test_numbers_out_of_range_are_refused(function, parameter):
    taken = inspect.signature(function).parameters
    options = {name: value for name, value in ARGUMENTS.items() if name in taken}
    if function.__name__ in OF_CENTERS:
        options["proxies"] = np.ones((2, 2, 4))
    wrong = [float("nan")] if parameter in ANY_NUMBER.get(function.__name__, ()) else [float("nan"), -1.0]
    for value in wrong:
        with pytest.raises(InputError, match=rf"^{parameter}\b|^cutoff"):
            function(**options, **{parameter: value})
