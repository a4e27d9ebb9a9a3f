"""Results of commands: JSON documents, pages with thumbnails, and thresholds in words."""

import json
import os
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simjax._files import absolute_path
from simjax.cli._arguments import join
from simjax.core import InputError
from simjax.train._progress import print_line

MAX_NAME = 255  # bytes
PRIOR = "for a prior of 0.5"
PROBABILITY = f"probability: that the closest item shows the same identity, {PRIOR}"


def print_json(value: Any) -> None:
    """Print one JSON document in ASCII: the output can have any encoding, and terminals act on other characters."""
    print(json.dumps(value, indent=1, allow_nan=False))


def plain(value: Any) -> Any:
    """Return a value that JSON can store."""
    return str(value) if isinstance(value, Path) else value


def check_output(option: str, file: str, suffixes: Sequence[str]) -> None:
    """Raise an InputError if a file has another suffix or cannot be written, before the work for its content is done.

    The suffix prevents that an image that was forgotten after the option is replaced.
    """
    path = Path(file)
    if path.suffix.lower() not in suffixes:
        raise InputError(f"`{option}`: expected a file that ends in {join(suffixes)}, got {path.name}")
    reason = ""
    if os.path.isdir(path):
        reason = "it is a folder"
    elif len(os.fsencode(path.name)) > MAX_NAME:
        reason = "its name is too long"
    elif not os.path.isdir(path.parent):
        reason = f"there is no folder {path.parent}"
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        reason = f"no permission to write to the folder {path.parent}"
    if reason:
        raise InputError(f"`{option}`: cannot write {path}: {reason}")


def check_new_folder(option: str, folder: str) -> None:
    """Raise an InputError if a folder exists or cannot have this name, before the work for its content is done."""
    if absolute_path(folder).exists():
        raise InputError(f"`{option}`: {folder} exists; choose another folder")


def check_page(file: str | None, *, is_opened: bool) -> None:
    """Raise an InputError if the page of the option --html cannot be written, or --open has no page."""
    if file is not None:
        check_output("html", file, (".html", ".htm"))
    elif is_opened:
        raise InputError("`open`: expected a page to open; name its file with `html`")


def write_page(file: str, title: str, lead: str, rows: Sequence[Any], *, is_opened: bool) -> None:
    """Write a page with a row of thumbnails for each `ImageRow`, and open it if the option --open is given."""
    from simjax.report import write_image_rows

    write_image_rows(Path(file), title, lead, rows)
    print_line(f"page: {file}", stderr=True)
    if is_opened:
        open_page(file)


def open_page(file: str | Path) -> None:
    """Open a page in the web browser. Without a browser nothing happens."""
    webbrowser.open(Path(file).absolute().as_uri())


def calibration_size(calibration: Any) -> dict[str, int]:
    """Return the numbers of images and identities of a calibration."""
    return {"images": len(calibration.identities), "identities": len(set(calibration.identities.tolist()))}


def print_verification(
    score: float, measure: Any, calibration: Any, fmr: float, how_to_calibrate: str, *, as_json: bool
) -> None:
    """Print whether the images of a score show the same identity, as a JSON document or as two lines.

    Args:
        score: Value of the measure.
        measure: Compares the images.
        calibration: Sets the threshold, or None.
        fmr: Wanted false match rate.
        how_to_calibrate: Advice for the case without a calibration.
        as_json: Print a JSON document.
    """
    names = ("probability", "same", "threshold", "fmr", "images", "identities")
    result: dict[str, Any] = {"score": score, "calibrated": calibration is not None} | dict.fromkeys(names)
    threshold = None
    if calibration is not None:
        threshold = calibration.pair_threshold(fmr)
        same = score >= threshold.value if measure.higher_is_closer else score <= threshold.value
        result |= {"probability": float(calibration.probability(score)), "same": same}
        result |= {"threshold": threshold.value, "fmr": fmr, **calibration_size(calibration)}
    if as_json:
        print_json(result)
    elif threshold is None:
        print_line(f"{measure.name} {score:.4f}")
        print_line(f"no decision without a calibration: {how_to_calibrate}")
    else:
        probability = f"probability of same {result['probability']:.3f} {PRIOR}"
        print_line(f"{'same' if result['same'] else 'different'} identity: {measure.name} {score:.4f}, {probability}")
        print_line(threshold)
