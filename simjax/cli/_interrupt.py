"""Ctrl-C: exit with one line on stderr and exit status 130 at any time."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from simjax.train._progress import print_line


@contextmanager
def exit_on_interrupt(message: Callable[[], str]) -> Iterator[None]:
    """Exit with status 130 and a message if Ctrl-C is pressed.

    `except KeyboardInterrupt` is not enough. Python discards an exception in a callback of the garbage collector, and
    JAX has such callbacks. C extensions that are interrupted while they are imported replace it by an ImportError.

    Args:
        message: Returns the line to print.
    """
    interrupted = threading.Event()
    previous_hook = sys.unraisablehook

    def raise_interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def repeat_discarded(discarded: "sys.UnraisableHookArgs") -> None:
        if issubclass(discarded.exc_type, KeyboardInterrupt):
            # An exception raised here would be discarded as well.
            threading.Timer(0.1, _thread.interrupt_main).start()
        else:
            previous_hook(discarded)

    is_main_thread = threading.current_thread() is threading.main_thread()  # only this thread may set a handler
    previous_handler = signal.signal(signal.SIGINT, raise_interrupt) if is_main_thread else None
    sys.unraisablehook = repeat_discarded
    try:
        yield
    except BaseException as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        if not is_interrupt and not (interrupted.is_set() and isinstance(error, Exception)):
            raise
        print_line(message(), stderr=True)
        if not is_interrupt:
            os._exit(130)  # a half-imported C extension would crash the interpreter at its exit
        sys.exit(130)
    finally:
        sys.unraisablehook = previous_hook
        if is_main_thread:
            signal.signal(signal.SIGINT, previous_handler)
