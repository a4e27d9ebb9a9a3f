"""Wrong options of every loss: one clear line, before anything is compiled."""

import inspect
import typing

import jax.numpy as jnp
import numpy as np
import pytest

from simjax import losses
from tests.losses.cases import float32

X, LABELS = float32(np.arange(12).reshape(6, 2)), np.array([0, 1, 0, 2, 1, 2])
REQUIRED = {
    "x": X,
    "y": X,
    "teacher": X,
    "scores": X @ X.T,
    "proxies": float32(np.eye(3, 2)),
    "term_function": lambda scores, positive, negative: {"pair": (scores, positive | negative)},
}
SHAPES = {"sub_center_arcface_loss": (3, 1, 2), "soft_triple_loss": (3, 1, 2)}


def accepted_options(loss):
    """Return the names of the `TypedDict` of `**options`, or none."""
    parameters = inspect.signature(inspect.unwrap(loss)).parameters.values()
    options = [p.annotation for p in parameters if p.kind == p.VAR_KEYWORD]
    return [
        name
        for annotation in options
        for d in typing.get_args(annotation)
        if typing.is_typeddict(d)
        for name in d.__annotations__
    ]


LOSSES = {name: f for name, f in vars(losses).items() if inspect.isfunction(f) and accepted_options(f)}

WRONG = {
    "ref_embeddings": (np.ones((6, 2), complex), np.ones(3)),
    "ref_labels": (np.ones(6), np.ones((2, 3), int)),
    "measure": (3, None),
    "weights": (np.ones(6, complex), np.ones((6, 1))),
    "reducer": (3, None),
    "block_size": (2.5, None),
}


def call(name, **options):
    loss = LOSSES[name]
    required = {"embeddings": X, "labels": LABELS} | REQUIRED
    if name in SHAPES:
        required["proxies"] = required["proxies"].reshape(SHAPES[name])
    given = [p for p in inspect.signature(loss).parameters.values() if p.default is p.empty and p.name in required]
    return loss(**{p.name: required[p.name] for p in given}, **options)


def message_of(name, error, **options):
    with pytest.raises(error) as raised:
        call(name, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_every_pair_loss_is_tested():
    assert {"contrastive_loss", "nt_xent_loss", "triplet_margin_loss", "smooth_ap_loss", "pair_loss"} <= set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.usefixtures("unchecked")
def test_wrong_options(name):
    accepted = accepted_options(LOSSES[name])
    message = message_of(name, TypeError, blok_size=3)
    if "block_size" in accepted:
        assert message.startswith(f"{name}: unknown option 'blok_size' (did you mean block_size? valid: ")
    for option in accepted:
        wrong_type, wrong_shape = WRONG.get(option, (None, None))
        reference = {"ref_embeddings": X, "ref_labels": LABELS}
        others = {key: reference[key] for key in reference if option in reference and key != option}
        if wrong_type is not None:
            assert message_of(name, TypeError, **others, **{option: wrong_type}).startswith(f"{option}: expected ")
        if wrong_shape is not None:
            assert message_of(name, ValueError, **others, **{option: wrong_shape}).startswith(f"{option}: expected ")
    if "reducer" in accepted:
        assert "did you mean mean?" in message_of(name, ValueError, reducer="meen")
    if "block_size" in accepted:
        assert message_of(name, ValueError, block_size=0) == "block_size: expected at least 1, got 0"
    if "weights" in accepted:
        assert message_of(name, ValueError, weights=jnp.ones(2)).startswith("weights: expected one for each of ")


@pytest.mark.usefixtures("unchecked")
def test_an_argument_of_the_loss_is_suggested_too():
    message = message_of("nt_xent_loss", TypeError, temprature=0.1)
    assert message.startswith("nt_xent_loss: unknown option 'temprature' (did you mean temperature?")


@pytest.mark.parametrize("name", ["contrastive_loss", "nt_xent_loss"])
def test_unreduced_takes_no_reducer(name):
    with pytest.raises(TypeError, match="reducer: expected none"):
        losses.unreduced(LOSSES[name])(X, LABELS, reducer="sum")
    with pytest.raises(TypeError, match="expected a loss that takes a reducer, got <lambda>"):
        losses.unreduced(lambda x, reducer=None: x)(X)
