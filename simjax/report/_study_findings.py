"""The findings of a study: verdicts that follow from its numbers by fixed rules.

A difference is claimed only if its interval excludes 0. The comparisons are of two kinds: those of the question, CNN
against ViT with each measure and how the measure changes this difference, and all others. The intervals of the m
comparisons of a kind have the confidence 1 - 0.05 / m each (Bonferroni), so that all of them hold with 95%.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from simjax.evaluate import Comparison
from simjax.report import _numbers as numbers
from simjax.report._page import Block, Row, Table, Text
from simjax.report._run import MODEL_NAMES
from simjax.report._study_group import MEASURE_NAMES, Group, Network, Pair, points

QUESTION, OTHERS = "question", "other comparisons"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A comparison of accuracies that the networks of a group allow.

    Attributes:
        kind: "question" or "other comparisons".
        measure: The measure of both networks, or for a change of the gap the measure in the place of the first one.
        subject: What is subtracted from what.
        values: Both values as text.
        verdicts: Conclusions from a positive and from a negative difference.
        compare: Returns the difference with an interval of the given confidence.
        is_change: Whether it is the change of a difference by another measure.
    """

    kind: str
    measure: str
    subject: str
    values: tuple[str, str]
    verdicts: tuple[str, str]
    compare: Callable[[float], Comparison | None]
    is_change: bool = False


@dataclasses.dataclass(frozen=True)
class Claim:
    """A difference of accuracies and what it shows."""

    asked: Asked
    found: Comparison

    @property
    def verdict(self) -> str:
        """What the difference shows, by the sign of the difference if its interval excludes 0."""
        if not self.found.is_shown:
            return "no difference shown"
        verdict = self.asked.verdicts[0 if (self.found.difference or 0.0) > 0 else 1]
        return verdict if self.found.runs > 1 else f"{verdict} in these runs"

    @property
    def interval(self) -> str:
        """The interval in points, such as "0.05 to 0.37"."""
        low, high = map(points, self.found.interval or ())
        return f"{low} to {high}"

    @property
    def difference(self) -> str:
        """The difference in points, such as "+0.21"."""
        return f"{100 * (self.found.difference or 0.0):+.2f}"

    def content(self) -> dict[str, Any]:
        """Return the claim as plain values."""
        return {
            "kind": self.asked.kind,
            "subject": self.asked.subject,
            "difference": self.found.difference,
            "difference_interval": self.found.interval,
            "confidence": self.found.confidence,
            "runs": self.found.runs,
            "shown": self.found.is_shown and self.found.runs > 1,
            "verdict": self.verdict,
        }


@dataclasses.dataclass(frozen=True)
class Findings:
    """The claims of a group of networks, and the answer that they give."""

    answer: str
    claims: list[Claim]

    def blocks(self) -> list[Block]:
        """Return the claims as tables, one for each kind."""
        if not self.claims:
            return [Text("There are no two networks with accuracies to compare.")]
        blocks: list[Block] = []
        for kind in (QUESTION, OTHERS):
            claims = [claim for claim in self.claims if claim.asked.kind == kind]
            if claims:
                rows: list[Row] = [
                    [one.asked.subject, *one.asked.values, f"{one.difference} ({one.interval})", one.verdict]
                    for one in claims
                ]
                columns = [numbers.capitalize(kind), "First", "Second", "Difference (interval)", "Verdict"]
                blocks += [Table(columns, rows, align="lrrll"), Text(_confidence(claims))]
        seeds = (
            "The intervals allow for other test images only: these are single runs, and another seed may decide "
            "otherwise."
            if any(claim.found.runs == 1 for claim in self.claims)
            else "The intervals allow for other test images and other seeds; how much a model varies with the seed is "
            "estimated from all its measures together, as if it were the same for each. With few seeds this is "
            "uncertain, and intervals are wide."
        )
        note = (
            f"Differences are in percentage points, the first value minus the second one. {seeds} No difference shown "
            "does not mean that there is none: the interval tells how large it may be. The verdicts are about networks "
            "that are trained with these settings; others may suit one of them better."
        )
        return [*blocks, Text(note)]

    def content(self) -> dict[str, Any]:
        """Return the findings as plain values."""
        return {"answer": self.answer, "claims": [claim.content() for claim in self.claims]}


def _confidence(claims: Sequence[Claim]) -> str:
    each = f"{100 * claims[0].found.confidence:.3g}%"
    if len(claims) == 1:
        return f"The interval has {each} confidence."
    return f"Each interval has {each} confidence, so that all hold together with 95% (Bonferroni)."


def findings(group: Group) -> Findings:
    """Return what a group of networks shows about the models, about the measures, and about both together."""
    question = [*_models(group, QUESTION, [("cnn", "vit")]), *_changes(group)]
    if len(question) == 1:  # one measure: there is no question about the measure
        question = []
    pairs = [pair for pair in itertools.combinations(group.models, 2) if not question or {*pair} != {"cnn", "vit"}]
    claims = []
    for asked in (question, [*_models(group, OTHERS, pairs), *_swaps(group)]):
        confidence = 1 - 0.05 / max(len(asked), 1)
        for one in asked:
            found = one.compare(confidence)
            if found is not None and found.difference is not None and found.interval is not None:
                claims.append(Claim(one, found))
    return Findings(_answer(claims, _reference(group)), claims)


def _models(group: Group, kind: str, pairs: Sequence[tuple[str, str]]) -> list[Asked]:
    """Ask for the difference of each pair of models with each measure that both have."""
    asked = []
    for measure, (a, b) in itertools.product(group.measures, pairs):
        x, y = group.find(a, measure), group.find(b, measure)
        if x is not None and y is not None:
            verdicts = f"the {_model(a)} is more accurate", f"the {_model(b)} is more accurate"
            subject = f"{_model(a)} minus {_model(b)}, {_measure(measure)}"
            asked.append(_pair(group, kind, measure, subject, verdicts, (x, y)))
    return asked


def _swaps(group: Group) -> list[Asked]:
    """Ask for the effect of each measure in the place of the reference, in each model."""
    asked = []
    first = _reference(group)
    others = [measure for measure in group.measures if measure != first]
    for model, measure in itertools.product(group.models, others):
        x, y = group.find(model, measure), group.find(model, first)
        if x is not None and y is not None:
            verdicts = f"more accurate with the {_measure(measure)}", f"more accurate with the {_measure(first)}"
            subject = f"{_model(model)}: {_measure(measure)} minus {_measure(first)}"
            asked.append(_pair(group, OTHERS, measure, subject, verdicts, (x, y)))
    return asked


def _reference(group: Group) -> str:
    """Return the measure with which the others are compared: the dot product, or the first one without it."""
    return "dot" if "dot" in group.measures else group.measures[0]


def _pair(group: Group, kind: str, measure: str, subject: str, verdicts: tuple[str, str], pair: Pair) -> Asked:
    x, y = pair
    values = [numbers.percent(mean) for mean in _means(pair)]

    def compare(confidence: float) -> Comparison | None:
        return group.difference(x, y, confidence=confidence)

    return Asked(kind, measure, subject, (values[0], values[1]), verdicts, compare)


def _means(pair: Pair, others: Sequence[Network] = ()) -> list[float | None]:
    """Return the mean accuracies of two networks over the seeds that both and all others have."""
    seeds = set.intersection(*(set(network.accuracies) for network in (*pair, *others)))
    values = [[network.accuracies[seed].value for seed in seeds] for network in pair]
    known = [[value for value in of if value is not None] for of in values]
    return [statistics.fmean(of) if of else None for of in known]


def _changes(group: Group) -> list[Asked]:
    """Ask whether the gap between CNN and ViT with another measure differs from the gap with the reference."""
    asked = []
    first = _reference(group)
    for measure in group.measures:
        if measure == first:
            continue
        pairs = _gap_pair(group, measure), _gap_pair(group, first)
        if pairs[0] is None or pairs[1] is None:
            continue
        subject = f"CNN minus ViT: {_measure(measure)} minus {_measure(first)}"
        verdicts = "the CNN gains on the ViT", "the ViT gains on the CNN"
        compare = _change(group, pairs[0], pairs[1])
        values = _gap(pairs[0], pairs[1]), _gap(pairs[1], pairs[0])
        asked.append(Asked(QUESTION, measure, subject, values, verdicts, compare, is_change=True))
    return asked


def _gap_pair(group: Group, measure: str) -> Pair | None:
    x, y = group.find("cnn", measure), group.find("vit", measure)
    return None if x is None or y is None else (x, y)


def _gap(pair: Pair, other: Pair) -> str:
    """Return the difference of the mean accuracies of a pair over the seeds that the other pair has as well."""
    x, y = _means(pair, other)
    return numbers.DASH if x is None or y is None else f"{100 * (x - y):+.2f}"


def _change(group: Group, pair: Pair, other: Pair) -> Callable[[float], Comparison | None]:
    return lambda confidence: group.change_of_gap(pair, other, confidence=confidence)


def _answer(claims: Sequence[Claim], reference: str) -> str:
    """Answer the question whether CNN and ViT perform alike because both measure similarity by a dot product."""
    asked = [claim for claim in claims if claim.asked.kind == QUESTION]
    changes = [claim for claim in asked if claim.asked.is_change]
    start = next((one for one in asked if not one.asked.is_change and one.asked.measure == reference), None)
    if start is None or not changes:
        return ""
    begin = start.verdict if start.found.is_shown else "no difference between CNN and ViT is shown"
    text = f"With the {_measure(reference)}, {begin}: CNN minus ViT is {start.difference} points ({start.interval}). "
    for claim in changes:
        verdict = claim.verdict if claim.found.is_shown else "no change is shown"
        text += (
            f"With the {_measure(claim.asked.measure)} instead, it is {claim.asked.values[0]} points, a change of "
            f"{claim.difference} ({claim.interval}): {verdict}. "
        )
    if start.found.runs == 1:
        return f"{text}These are single runs: another seed may decide otherwise."
    if any(claim.found.runs == 1 for claim in changes):
        return f"{text}A change of single runs: another seed may decide otherwise."
    if any(claim.found.is_shown for claim in changes):
        return f"{text}So the measure inside the networks matters to the difference between them."
    bound = points(max(max(map(abs, claim.found.interval or (0.0, 0.0))) for claim in changes))
    return (
        f"{text}So these runs do not show that the measure matters to the difference between CNN and ViT; a change of "
        f"more than {bound} points is ruled out."
    )


def _model(name: str) -> str:
    return MODEL_NAMES.get(name, name)


def _measure(name: str) -> str:
    return MEASURE_NAMES.get(name, name)
