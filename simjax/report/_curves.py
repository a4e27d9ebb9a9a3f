"""Loss and accuracy during training, of one run or of several laid over one another."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from simjax.report import _numbers as numbers
from simjax.report import _style as style
from simjax.report._page import Picture
from simjax.report._run import Run

LONG = 60  # points from which a curve is drawn as its running mean, with the points pale behind it


@dataclasses.dataclass(frozen=True)
class _Line:
    label: str
    steps: list[float]
    values: list[float]


def curves(run: Run) -> list[Picture]:
    """Loss and accuracy over the steps, in training and validation; what was not measured is left out."""
    pictures = []
    for name in ("loss", "accuracy"):
        lines = _measured([("training", run, name), ("validation", run, f"validation_{name}")])
        if lines:
            png, note = _draw(name, lines)
            last = "; ".join(f"{line.label} ends at {_value(name, line.values[-1])}" for line in lines)
            caption = (
                f"{name.capitalize()} of the training batches and of the validation images at each step{note} "
                "Where training goes on improving and validation does not, the model learns by heart."
            )
            pictures.append(Picture(name, png, f"{name.capitalize()} by step: {last}.", caption))
    return pictures


def overlaid_curves(runs: Sequence[Run], names: Sequence[str]) -> list[Picture]:
    """Loss and accuracy of several runs in one chart each: of validation if all have it, of training otherwise."""
    pictures = []
    for name in ("loss", "accuracy"):
        for kind, key in (("validation", f"validation_{name}"), ("training", name)):
            lines = _measured([(label, run, key) for label, run in zip(names, runs, strict=True)])
            if len(lines) == len(runs) or (lines and kind == "training"):
                break
        else:
            continue
        png, note = _draw(name, lines)
        last = "; ".join(f"{line.label} ends at {_value(name, line.values[-1])}" for line in lines)
        caption = f"{kind.capitalize()} {name} of each run by step{note}"
        if name == "loss":
            caption += " Losses of different objectives have different scales: compare their course, not their height."
        pictures.append(Picture(name, png, f"{kind.capitalize()} {name} by step: {last}.", caption))
    return pictures


def _measured(wanted: Sequence[tuple[str, Run, str]]) -> list[_Line]:
    lines = [_Line(label, *run.series(key)) for label, run, key in wanted]
    return [line for line in lines if line.steps]


def _value(name: str, value: float) -> str:
    return numbers.percent(value) if name == "accuracy" else numbers.decimal(value)


def _draw(name: str, lines: Sequence[_Line]) -> tuple[bytes, str]:
    """The chart, and the end of the sentence that says what it shows."""
    figure, axes = style.chart()
    note = "."
    for line, (colour, dash, marker) in zip(lines, style.looks(), strict=False):
        steps, values = np.asarray(line.steps), np.asarray(line.values)
        if len(values) > LONG:
            axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.3)
            window = len(values) // 20
            steps = np.convolve(steps, np.ones(window) / window, "valid")
            values = np.convolve(values, np.ones(window) / window, "valid")
            note = "; the strong line is a running mean of the pale one."
        marker = marker if len(values) <= 20 else ""
        axes.plot(steps, values, color=colour, linestyle=dash, linewidth=1.4, marker=marker, markersize=3.5, label="x")
    style.legend(axes, [line.label for line in lines])
    everything = np.concatenate([line.values for line in lines])
    if name == "loss" and everything.min() > 0 and everything.max() > 20 * everything.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        note = ", on a logarithmic scale" + note
    if name == "accuracy":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    style.label_axes(axes, "step", name)
    return style.to_png(figure), note
