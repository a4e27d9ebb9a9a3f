"""Checkpoints: the whole state, saved and restored by Orbax. The only file that knows Orbax."""

import asyncio
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from simjax.core import InputError
from simjax.train._step import State

SMALL_FILES = 2**17  # bytes for what a checkpoint writes beside its arrays


class Checkpoints:
    """The last two states of a run, in a folder.

    A checkpoint appears under its name only when it is whole, so that neither a kill nor a full disk can leave
    anything but the ones before it.
    """

    def __init__(self, folder: Path):
        import orbax.checkpoint as ocp

        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs tracebacks of errors that it raises, too
        self._ocp = ocp
        self.folder = folder.resolve()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(2), enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, state: State, seconds: float) -> None:
        """Save the state and the training time so far.

        Raises:
            InputError: if it cannot be written; what was saved before is untouched.
        """
        args = self._ocp.args
        # Copied first: the next step reuses the state's memory.
        arrays = jax.tree.map(lambda a: np.array(a), _plain(state))
        needed = sum(a.nbytes for a in arrays.values()) * 3 // 2 + SMALL_FILES
        free = shutil.disk_usage(self.folder).free
        if free < needed:  # found out before, a full disk leaves nothing half-written
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
        except Exception as error:  # Orbax and TensorStore raise many types for a disk that is full or read-only
            for part in self.folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(part, ignore_errors=True)
            raise InputError(f"cannot save a checkpoint in {self.folder}: {_short(error)}") from error

    def restore(self, like: State) -> tuple[State, float] | None:
        """The newest state and the training time until then, or None if there is none.

        Args:
            like: a state of the same structure, shapes and types.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        args = self._ocp.args
        target = jax.tree.map(self._ocp.utils.to_shape_dtype_struct, _plain(like))
        try:
            with _draining_event_loops():
                found = self._manager.restore(
                    step, args=args.Composite(state=args.StandardRestore(target), run=args.JsonRestore())
                )
        except Exception as error:
            self.close()
            raise InputError(
                f"cannot read the checkpoint {self.folder / str(step)}: {_short(error)}; without that folder the run "
                "goes on from the checkpoint before it, or from the start"
            ) from error
        leaves = jax.tree.leaves(found["state"])
        state = jax.tree.unflatten(jax.tree.structure(like._replace(key=_key_data(like))), leaves)
        return state._replace(key=jax.random.wrap_key_data(state.key)), found["run"]["seconds"]

    def close(self) -> None:
        """Finish what is being written."""
        self._manager.close()


class _DrainingEventLoop(asyncio.SelectorEventLoop):
    """An event loop that lets its tasks end before it closes."""

    def close(self) -> None:
        if tasks := asyncio.all_tasks(self):
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        super().close()


@contextmanager
def _draining_event_loops() -> Iterator[None]:
    """Let Orbax use event loops that end their tasks.

    When one array cannot be read, Orbax closes its event loop while other arrays are still being read; each of them
    then reports a closed event loop, with a traceback, when the process ends.
    """
    original = asyncio.new_event_loop
    asyncio.new_event_loop = _DrainingEventLoop
    try:
        yield
    finally:
        asyncio.new_event_loop = original


def _key_data(state: State) -> jax.Array:
    return jax.random.key_data(state.key)


def _plain(state: State) -> dict[str, Any]:
    """The leaves in their order, under numbered names: independent of which classes the tree is made of."""
    leaves = jax.tree.leaves(state._replace(key=_key_data(state)))
    return {f"{i:04d}": leaf for i, leaf in enumerate(leaves)}


def _short(error: Exception) -> str:
    """Return the reason in an error's first line: TensorStore writes it after all places, and before its settings."""
    lines = [line.strip("'\" ") for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    reason = ": ".join(lines[0].split(" [tensorstore_spec")[0].split(": ")[-2:])
    return reason.split(". ")[0]
