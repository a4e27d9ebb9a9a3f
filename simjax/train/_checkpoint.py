"""Checkpoints of the whole training state, saved and restored by Orbax."""

import asyncio
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simjax.core import InputError
from simjax.train._step import State

METADATA_BYTES = 2**17  # size of the files of a checkpoint other than its arrays


class Checkpoints:
    """The last two checkpoints of a training run, in a folder.

    A checkpoint gets its final name when it is complete, so earlier checkpoints survive a killed process or a full
    disk.
    """

    def __init__(self, folder: Path):
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax also logs tracebacks of errors that it raises
        self._ocp = ocp
        self.folder = folder.resolve()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(2), enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._last_save = time.perf_counter()

    def seconds_since_save(self) -> float:
        """Return the time since the last checkpoint, or since the start of the training."""
        return time.perf_counter() - self._last_save

    def save(self, state: State, seconds: float) -> None:
        """Save the state and the seconds of training. If this raises an `InputError`, earlier checkpoints remain."""
        args = self._ocp.args
        arrays = jax.tree.map(np.array, _numbered_leaves(state))  # copies, because the next step donates the buffers
        needed = sum(a.nbytes for a in arrays.values()) * 3 // 2 + METADATA_BYTES  # the arrays with a margin of a half
        free = shutil.disk_usage(self.folder).free
        if free < needed:  # checked first, so that a full disk leaves no partial checkpoint
            raise InputError(
                f"cannot save a checkpoint in {self.folder}: no space left ({free:,} bytes free, {needed:,} needed)"
            )
        try:
            with _draining_event_loops():
                self._manager.save(
                    int(state.step),
                    args=args.Composite(state=args.StandardSave(arrays), run=args.JsonSave({"seconds": seconds})),
                    force=True,
                )
                self._manager.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore raise many types for a full or read-only disk
            for part in self.folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(part, ignore_errors=True)
            raise InputError(f"cannot save a checkpoint in {self.folder}: {_reason(error)}") from error
        self._last_save = time.perf_counter()

    def restore(self, like: State) -> tuple[State, float] | None:
        """Return the newest state and its seconds of training, or None if there is no checkpoint.

        `like` is a state with the structure, shapes and types of the saved state, such as a new one. An `InputError` is
        raised if the checkpoint cannot be read; this object is then closed.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        args = self._ocp.args
        target = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, _numbered_leaves(like))
        try:
            with _draining_event_loops():
                restored = self._manager.restore(
                    step, args=args.Composite(state=args.StandardRestore(target), run=args.JsonRestore())
                )
        except Exception as error:
            self.close()
            raise InputError(
                f"cannot read the checkpoint {self.folder / str(step)}: {_reason(error)}; delete that folder to "
                "continue from the checkpoint before it, or from the start"
            ) from error
        # Not committed to a device, like the arrays of a new state. For committed arrays the step would compile again.
        leaves = jax.device_put([np.asarray(a) for a in jax.tree.leaves(restored["state"])])
        state = jax.tree.unflatten(jax.tree.structure(_with_key_data(like)), leaves)
        return state._replace(key=jax.random.wrap_key_data(state.key)), restored["run"]["seconds"]

    def close(self) -> None:
        """Wait for pending writes and release the resources of Orbax."""
        self._manager.close()


def _with_key_data(state: State) -> State:
    """Return the state with the PRNG key as integers, which Orbax can save."""
    return state._replace(key=jax.random.key_data(state.key))


def _numbered_leaves(state: State) -> dict[str, Any]:
    """Return the leaves by number, so that checkpoints do not depend on the classes and names of the tree.

    The PRNG key is a leaf of integers. Zeros before the numbers keep the order of the leaves when the names are sorted.
    """
    return {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(_with_key_data(state)))}


def _reason(error: Exception) -> str:
    """Return the reason in the first line of an error of TensorStore, without paths and settings."""
    lines = [line.strip("'\" ") for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    reason = ": ".join(lines[0].split(" [tensorstore_spec")[0].split(": ")[-2:])
    return reason.split(". ")[0]


class _DrainingEventLoop(asyncio.SelectorEventLoop):
    """An event loop that finishes its tasks before it closes."""

    def close(self) -> None:
        if tasks := asyncio.all_tasks(self):
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


@contextmanager
def _draining_event_loops() -> Iterator[None]:
    """Make Orbax use event loops that finish their tasks.

    If an array cannot be read, Orbax closes its event loop while other arrays are still being read. Each unfinished
    read then prints a traceback about a closed event loop when the process ends.
    """
    original = asyncio.new_event_loop
    asyncio.new_event_loop = _DrainingEventLoop
    try:
        yield
    finally:
        asyncio.new_event_loop = original
