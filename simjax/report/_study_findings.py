"""The findings of a study in sentences that follow from its numbers by fixed rules.

A difference is claimed only if its interval excludes 0. The intervals of the m claims of a group have the confidence
1 - 0.05 / m each (Bonferroni), so that all of them are right with 95%.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from simjax.evaluate import Comparison
from simjax.report import _numbers as numbers
from simjax.report._page import Block, Text
from simjax.report._study_group import (
    ACCURACY,
    MEASURE_NAMES,
    MODEL_NAMES,
    Group,
    Network,
    change_of_gap,
    difference,
    points,
)

Compare = Callable[[float], Comparison | None]  # of a confidence


@dataclasses.dataclass(frozen=True)
class Claim:
    """A difference of accuracies and the sentence about it."""

    subject: str
    found: Comparison
    sentence: str


@dataclasses.dataclass(frozen=True)
class Findings:
    """The claims of a group of networks, and the answer that they give."""

    answer: str
    claims: list[Claim]
    confidence: float

    def blocks(self) -> list[Block]:
        """Return the answer and the claims as paragraphs."""
        note = (
            f"Intervals in this section have {100 * self.confidence:.3g}% confidence each, so that all "
            f"{len(self.claims)} statements hold together with 95%. They contain the chance of the test images and, "
            "with several seeds, that of the seeds. A point is one percentage point of accuracy."
        )
        return [Text(text) for text in (self.answer, *(claim.sentence for claim in self.claims), note) if text]

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
                    "sentence": claim.sentence,
                }
                for claim in self.claims
            ],
        }


def findings(group: Group) -> Findings:
    """Return what a group of networks shows about the models, about the measures, and about both together."""
    asked = [*_architectures(group), *_swaps(group), *_changes(group)]
    confidence = 1 - 0.05 / max(len(asked), 1)
    claims = []
    for kind, subject, better, worse, compare in asked:
        found = compare(confidence)
        if found is not None and found.difference is not None and found.interval is not None:
            sentence = _sentence(subject, better, worse, found.difference, found)
            claims.append((kind, Claim(subject, found, sentence)))
    return Findings(_answer(group, claims), [claim for _, claim in claims], confidence)


Asked = tuple[str, str, str, str, Compare]  # kind, subject, words for a positive and for a negative difference, compare


def _architectures(group: Group) -> list[Asked]:
    """Ask for the difference of each two models with each measure that both have."""
    asked: list[Asked] = []
    for measure, (a, b) in itertools.product(group.measures, itertools.combinations(group.models, 2)):
        x, y = group.find(a, measure), group.find(b, measure)
        if x is not None and y is not None:
            subject = f"{_model(a)} against {_model(b)}, both with {_measure(measure)} {_values(x, y)}"
            asked.append(("model", subject, f"{_model(a)} is better", f"{_model(b)} is better", _pair(x, y)))
    return asked


def _swaps(group: Group) -> list[Asked]:
    """Ask for the effect of each measure in the place of the first one, in each model."""
    asked: list[Asked] = []
    first, *others = group.measures
    for model, measure in itertools.product(group.models, others):
        x, y = group.find(model, measure), group.find(model, first)
        if x is not None and y is not None:
            subject = f"{_measure(measure)} in the place of {_measure(first)}, in the {_model(model)} {_values(x, y)}"
            asked.append(("measure", subject, "the accuracy is higher", "the accuracy is lower", _pair(x, y)))
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
        subject = f"The gap between CNN and ViT with {_measure(measure)} against that with {_measure(first)}"
        asked.append(("gap", subject, "the CNN gains on the ViT", "the ViT gains on the CNN", _gap(other, pair)))
    return asked


def _pair(a: Network, b: Network) -> Compare:
    return lambda confidence: difference(a, b, confidence=confidence)


def _gap(a: Any, b: Any) -> Compare:
    return lambda confidence: change_of_gap(a, b, confidence=confidence)


def _sentence(subject: str, positive: str, negative: str, difference: float, found: Comparison) -> str:
    low, high = map(points, found.interval or ())
    verdict = "no difference shown" if not found.is_shown else positive if difference > 0 else negative
    return f"{subject[0].upper()}{subject[1:]}: {verdict} ({points(difference)} points, interval {low} to {high})."


def _answer(group: Group, claims: list[tuple[str, Claim]]) -> str:
    """Answer the question whether CNN and ViT perform alike because both measure similarity by a dot product."""
    gaps = [claim for kind, claim in claims if kind == "gap"]
    cnn, vit = group.find("cnn", "dot"), group.find("vit", "dot")
    base = None if cnn is None or vit is None else difference(cnn, vit)
    if not gaps or base is None or base.interval is None:
        return ""
    largest = max(map(abs, base.interval))
    start = f"With the dot product, CNN and ViT differ by at most {points(largest)} points (95%). "
    changed = [claim for claim in gaps if claim.found.is_shown]
    if changed:
        names = "; ".join(claim.subject.removeprefix("The gap between CNN and ViT ") for claim in changed)
        return (
            f"{start}The difference between them depends on the measure: it changes {names}. So the dot product is "
            "part of how alike they perform on these images."
        )
    bound = max(max(map(abs, claim.found.interval or (0.0, 0.0))) for claim in gaps)
    return (
        f"{start}With other measures inside both networks, this difference changes by at most {points(bound)} points, "
        "and no change is shown. So these runs do not show that CNN and ViT perform alike because of the dot product: "
        "they perform as alike without it, as far as these images can tell."
    )


def _values(x: Network, y: Network) -> str:
    return f"({numbers.percent(x.mean(ACCURACY))} and {numbers.percent(y.mean(ACCURACY))})"


def _model(name: str) -> str:
    return MODEL_NAMES.get(name, name)


def _measure(name: str) -> str:
    return f"the {MEASURE_NAMES.get(name, name)}"
