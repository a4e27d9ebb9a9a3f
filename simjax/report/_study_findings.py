"""The findings of a study: verdicts that follow from its numbers by fixed rules.

A difference is claimed only if its interval excludes 0. The intervals of the m claims of a group have the confidence
1 - 0.05 / m each (Bonferroni), so that all of them are right with 95%.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from simjax.evaluate import Comparison
from simjax.report import _numbers as numbers
from simjax.report._page import Block, Row, Table, Text
from simjax.report._run import MODEL_NAMES
from simjax.report._study_group import (
    ACCURACY,
    MEASURE_NAMES,
    Group,
    Network,
    change_of_gap,
    difference,
    points,
)

Compare = Callable[[float], Comparison | None]  # of a confidence


@dataclasses.dataclass(frozen=True)
class Claim:
    """A difference of accuracies and what it shows."""

    kind: str  # "model", "measure" or "gap"
    subject: str
    found: Comparison
    verdict: str

    @property
    def difference(self) -> str:
        """The difference with its interval in points, such as "+0.21 (0.05 to 0.37)"."""
        low, high = map(points, self.found.interval or ())
        return f"{100 * (self.found.difference or 0.0):+.2f} ({low} to {high})"


@dataclasses.dataclass(frozen=True)
class Findings:
    """The claims of a group of networks, and the answer that they give."""

    answer: str
    claims: list[Claim]
    confidence: float

    def blocks(self) -> list[Block]:
        """Return the claims as a table."""
        if not self.claims:
            return [Text("There are no two networks with accuracies to compare.")]
        rows: list[Row] = [[claim.subject, claim.difference, claim.verdict] for claim in self.claims]
        note = (
            f"Differences of accuracies in percentage points. The intervals have {100 * self.confidence:.3g}% "
            f"confidence each, so that all {len(self.claims)} verdicts are right together with 95%. They contain the "
            "chance of the test images and, with several seeds, that of the seeds. No difference shown does not mean "
            "that there is none: the interval tells how large it may be."
        )
        table = Table(["Compared", "Difference (interval)", "Verdict"], rows, align="lll")
        return [table, Text(note)]

    def content(self) -> dict[str, Any]:
        """Return the findings as plain values."""
        return {
            "answer": self.answer,
            "confidence": self.confidence,
            "claims": [
                {
                    "subject": claim.subject,
                    "difference": claim.found.difference,
                    "difference_interval": claim.found.interval,
                    "runs": claim.found.runs,
                    "shown": claim.found.is_shown,
                    "verdict": claim.verdict,
                }
                for claim in self.claims
            ],
        }


def findings(group: Group) -> Findings:
    """Return what a group of networks shows about the models, about the measures, and about both together."""
    asked = [*_architectures(group), *_swaps(group), *_changes(group)]
    confidence = 1 - 0.05 / max(len(asked), 1)
    claims = []
    for kind, subject, positive, negative, compare in asked:
        found = compare(confidence)
        if found is not None and found.difference is not None and found.interval is not None:
            shown = positive if found.difference > 0 else negative
            claims.append(Claim(kind, subject, found, shown if found.is_shown else "no difference shown"))
    return Findings(_answer(claims), claims, confidence)


Asked = tuple[str, str, str, str, Compare]  # kind, subject, words for a positive and for a negative difference, compare


def _architectures(group: Group) -> list[Asked]:
    """Ask for the difference of each two models with each measure that both have."""
    asked: list[Asked] = []
    for measure, (a, b) in itertools.product(group.measures, itertools.combinations(group.models, 2)):
        x, y = group.find(a, measure), group.find(b, measure)
        if x is not None and y is not None:
            subject = f"{_model(a)} against {_model(b)}, both with {_measure(measure)} {_values(x, y)}"
            verdicts = f"the {_model(a)} is better", f"the {_model(b)} is better"
            asked.append(("model", subject, *verdicts, _pair(x, y)))
    return asked


def _swaps(group: Group) -> list[Asked]:
    """Ask for the effect of each measure in the place of the first one, in each model."""
    asked: list[Asked] = []
    first, *others = group.measures
    for model, measure in itertools.product(group.models, others):
        x, y = group.find(model, measure), group.find(model, first)
        if x is not None and y is not None:
            subject = f"{_model(model)}: {_measure(measure)} against {_measure(first)} {_values(x, y)}"
            verdicts = f"{_measure(measure)} is better", f"{_measure(first)} is better"
            asked.append(("measure", subject, *verdicts, _pair(x, y)))
    return asked


def _changes(group: Group) -> list[Asked]:
    """Ask whether the gap between CNN and ViT with another measure differs from the gap with the first one."""
    asked: list[Asked] = []
    first, *others = group.measures
    pair = group.find("cnn", first), group.find("vit", first)
    for measure in others:
        other = group.find("cnn", measure), group.find("vit", measure)
        if None in (*pair, *other):
            continue
        subject = f"CNN minus ViT: with {_measure(measure)} against with {_measure(first)}"
        asked.append(("gap", subject, "the CNN gains on the ViT", "the ViT gains on the CNN", _gap(other, pair)))
    return asked


def _pair(a: Network, b: Network) -> Compare:
    return lambda confidence: difference(a, b, confidence=confidence)


def _gap(a: Any, b: Any) -> Compare:
    return lambda confidence: change_of_gap(a, b, confidence=confidence)


def _answer(claims: list[Claim]) -> str:
    """Answer the question whether CNN and ViT perform alike because both measure similarity by a dot product."""
    gaps = [claim for claim in claims if claim.kind == "gap"]
    start = next((claim for claim in claims if claim.subject.startswith("CNN against ViT, both with the dot")), None)
    if start is None or not gaps:
        return ""
    low, high = map(points, start.found.interval or ())
    if start.found.is_shown:
        text = f"With the dot product, CNN and ViT do not perform alike: {start.verdict} by {low} to {high} points. "
    else:
        text = f"With the dot product, no difference of CNN and ViT is shown; it is between {low} and {high} points. "
    changed = [claim for claim in gaps if claim.found.is_shown]
    if changed:
        verdicts = "; ".join(f"{claim.verdict} with {claim.subject.partition(' with ')[2]}" for claim in changed)
        return f"{text}This difference depends on the measure inside the networks: {verdicts}."
    bound = points(max(max(map(abs, claim.found.interval or (0.0, 0.0))) for claim in gaps))
    return (
        f"{text}Another measure inside both networks changes this difference by at most {bound} points, and no change "
        "is shown. So these runs do not show that the dot product is what makes CNN and ViT alike or different."
    )


def _values(x: Network, y: Network) -> str:
    return f"({numbers.percent(x.mean(ACCURACY))} and {numbers.percent(y.mean(ACCURACY))})"


def _model(name: str) -> str:
    return MODEL_NAMES.get(name, name)


def _measure(name: str) -> str:
    return f"the {MEASURE_NAMES.get(name, name)}"
