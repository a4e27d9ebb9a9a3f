"""The verdict of a comparison: which recipe is better, by how much, and how sure that is."""

import statistics
from collections.abc import Sequence

from simjax.report import _numbers as numbers
from simjax.report._metrics import BY_NAME, COMPARED
from simjax.report._page import Card
from simjax.report._recipes import Recipe, compared_runs, difference, shown_best

NEARLY_0 = 0.1  # an interval whose nearer end is less than this share of the difference nearly reaches 0


def verdict_of(recipes: Sequence[Recipe]) -> str:
    """Return which recipe is better by how much, by the accuracy, or that no difference is shown.

    The recipes are in the order of their accuracy.
    """
    metric, first = BY_NAME["accuracy"], recipes[0]
    values = first.values(metric)
    if len(recipes) == 1:
        if not values:
            return f"{len(first.runs)} runs of one recipe."
        return (
            f"{len(values)} runs of one recipe: accuracy {metric.show(statistics.fmean(values))} on average, from "
            f"{metric.show(min(values))} to {metric.show(max(values))}."
        )
    if len(recipes) > 2:
        best = [recipe.name for recipe, is_best in zip(recipes, shown_best(metric, recipes), strict=True) if is_best]
        if best:
            return f"{best[0]} has a higher accuracy than every other recipe. The differences are below."
        return "No recipe is shown to have a higher accuracy than every other one. The differences are below."
    first, second = compared_runs(recipes[0], recipes[1])
    found = difference(metric, first, second)
    if found is not None and (found.difference or 0.0) < 0:
        first, second = second, first
        found = difference(metric, first, second)
    if found is None or found.difference is None or found.interval is None:
        return "The accuracies of these runs cannot be compared: they are missing, or of different kinds or images."
    shown, low, high = (f"{100 * value:.2f}" for value in (found.difference, *found.interval))
    means = [statistics.fmean(recipe.values(metric)) for recipe in (first, second)]
    accuracies = f"{metric.show(means[0])} against {metric.show(means[1])}"
    if images := numbers.number(first.runs[0].part("data").get("test_images")):
        wrong = [(1 - mean) * images for mean in means]
        mistakes = [f"{count:,.0f}" if count >= 10 else f"{count:.1f}".removesuffix(".0") for count in wrong]
        accuracies += f", or {mistakes[0]} against {mistakes[1]} mistakes in {images:,.0f} test images"
    size = f"the difference is {shown} points, with a 95% interval from {low} to {high}"
    if found.runs > 1:
        names, basis = (first.name, second.name), f"Means of {found.runs} runs of each"
    else:
        names = f"this run of {first.name}", f"that of {second.name}"
        basis = "One run of each, so that another seed may decide otherwise"
    if found.is_shown:
        text = f"{names[0]} has a higher accuracy than {names[1]}: {accuracies}. {basis}; {size}."
        if min(map(abs, found.interval)) < NEARLY_0 * abs(found.difference):
            text += " The interval nearly reaches 0, so that this is weak evidence."
    else:
        text = f"No difference between {names[0]} and {names[1]} is shown: accuracy {accuracies}. {basis}; {size}."
    return text + _other_metrics(first, second)


def _other_metrics(first: Recipe, second: Recipe) -> str:
    """Return on how many metrics but the accuracy the first recipe is ahead, and for which a difference is shown."""
    metrics = [metric for metric in COMPARED if metric.name != "accuracy"]
    found = [(metric, difference(metric, first, second)) for metric in metrics]
    known = [
        ((one.difference > 0) == (metric.better == "highest"), one.is_shown)
        for metric, one in found
        if one is not None and one.difference
    ]
    if not known:
        return ""
    ahead = sum(is_ahead for is_ahead, _ in known)
    shown, against = (sum(is_shown for is_ahead, is_shown in known if is_ahead == wanted) for wanted in (True, False))
    text = f" {numbers.capitalize(first.name)} is ahead on {ahead} of {len(known)} other metrics"
    if not shown + against:
        return f"{text}; none of these differences is shown."
    return f"{text}; a difference is shown on {shown} of these" + (
        f", and on {against} against it." if against else "."
    )


def cards(recipes: Sequence[Recipe]) -> list[Card]:
    """Return the mean accuracy of the first recipes, with its range over the runs."""
    metric, found = BY_NAME["accuracy"], []
    for recipe in recipes[:4]:
        values = recipe.values(metric)
        if not values:
            continue
        low, high = metric.show(min(values)), metric.show(max(values))
        meaning = "Accuracy of one run."
        if len(values) > 1:
            seeds = " with different random seeds" if len(set(recipe.seeds)) == len(recipe.runs) else ""
            values_of = f"{low} each" if low == high else f"lowest {low}, highest {high}"
            meaning = f"Mean accuracy of {len(values)} runs{seeds}: {values_of}."
        found.append(Card(recipe.name, metric.show(statistics.fmean(values)), "", meaning))
    return found
