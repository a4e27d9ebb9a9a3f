"""A training that goes on longer than it was meant to.

Steps that have been taken cannot be taken again with another learning rate, so a training can only be made longer if
its settings say the same about them for any length: with a constant learning rate after the warm-up, which keeps its
number of steps. A cosine schedule has ended at a learning rate of 0; a curriculum and the clusters of an ensemble are
made for the whole length.
"""

from dataclasses import replace

from simjax.core import InputError
from simjax.train._objective import total_steps
from simjax.train._settings import Settings
from simjax.train._step import warmup_steps


def extend(before: Settings, after: Settings, steps_per_epoch: int) -> Settings:
    """Return the settings of a training that is made longer.

    A whole training with these settings takes the same steps as the one that was made longer.

    Args:
        before: with which the training began.
        after: the same with another number of epochs or steps.
        steps_per_epoch: of the training.

    Raises:
        InputError: if the training would be shorter, or its length cannot be changed.
    """
    old, new = (total_steps(settings, steps_per_epoch) for settings in (before, after))
    if new == old:
        return replace(after, epochs=before.epochs, steps=before.steps)
    if new < old:
        raise InputError(
            f"epochs, steps: expected at least the {old:,} steps that the run was started for, got {new:,}"
        )
    reason = None
    if before.optimizer.schedule != "constant":
        reason = f"its learning rate has a {before.optimizer.schedule} schedule, which ends after {old:,} steps"
    elif before.mining.miner == "curriculum":
        reason = f"its curriculum is one of {old:,} steps"
    elif before.ensemble.size > 1:
        reason = "its encoders are trained one after the other"
    if reason is not None:
        raise InputError(
            f"epochs, steps: the run cannot be trained for longer than {old:,} steps, because {reason}; a single "
            "encoder without a curriculum that is trained with optimizer.schedule constant can be"
        )
    warmup = warmup_steps(before, old) / new
    return replace(after, optimizer=replace(after.optimizer, warmup=warmup))
