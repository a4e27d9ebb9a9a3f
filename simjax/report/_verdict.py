"""The verdict of a comparison: which recipe is better, by how much, and how sure that is."""

import statistics
from collections.abc import Sequence

from simjax.report import _numbers as numbers
from simjax.report._metrics import BY_NAME, COMPARED
from simjax.report._page import Card
from simjax.report._recipes import Recipe, difference, shown_best

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
        if shown_best(metric, recipes)[0]:
            return f"{first.name} has a higher accuracy than every other recipe. The differences are below."
        return "No recipe is shown to have a higher accuracy than every other one. The differences are below."
    second = recipes[1]
    found = difference(metric, first, second)
    if found is None or found.difference is None or found.interval is None:
        return "The accuracies of these runs cannot be compared: they are missing, or of different kinds or images."
    shown, low, high = (f"{100 * value:.2f}" for value in (found.difference, *found.interval))
    means = [statistics.fmean(recipe.values(metric)) for recipe in recipes]
    accuracies = f"{metric.show(means[0])} against {metric.show(means[1])}"
    if images := numbers.number(first.runs[0].part("data").get("test_images")):
        wrong = [f"{(1 - mean) * images:,.3g}" for mean in means]
        accuracies += f", or {wrong[0]} against {wrong[1]} mistakes in {images:,.0f} test images"
    many = found.runs > 1
    of = f"Means of {found.runs} runs of each" if many else "One run of each, so that another seed may decide otherwise"
    size = f"the difference is {shown} points, with a 95% interval from {low} to {high}"
    others = _other_metrics(first, second)
    if found.is_shown:
        text = f"{first.name} has a higher accuracy than {second.name}: {accuracies}. {of}; {size}."
        if min(map(abs, found.interval)) < NEARLY_0 * abs(found.difference):
            text += " The interval nearly reaches 0, so that this is weak evidence."
    else:
        text = f"No difference between {first.name} and {second.name} is shown: accuracy {accuracies}. {of}; {size}."
    return text + others


def _other_metrics(first: Recipe, second: Recipe) -> str:
    """Return on how many metrics but the accuracy the first recipe is better, and how many differences are shown."""
    metrics = [metric for metric in COMPARED if metric.name != "accuracy"]
    found = [(metric, difference(metric, first, second)) for metric in metrics]
    known = [(metric.better == "highest", one) for metric, one in found if one is not None and one.difference]
    if not known:
        return ""
    ahead = sum((one.difference > 0) == is_higher_better for is_higher_better, one in known if one.difference)
    shown = sum(one.is_shown for _, one in known)
    return (
        f" {first.name} is ahead on {ahead} of {len(known)} other metrics; {shown or 'none'} of these differences "
        f"{'are' if shown > 1 else 'is'} shown."
    )


def cards(recipes: Sequence[Recipe]) -> list[Card]:
    """Return the mean accuracy of the first recipes, with its range over the seeds."""
    metric, found = BY_NAME["accuracy"], []
    for recipe in recipes[:4]:
        values = recipe.values(metric)
        if not values:
            continue
        low, high = metric.show(min(values)), metric.show(max(values))
        meaning = "Accuracy of one run."
        if len(values) > 1:
            runs = f"{low} each" if low == high else f"lowest {low}, highest {high}"
            meaning = f"Mean accuracy of {len(values)} runs with different random seeds: {runs}."
        found.append(Card(recipe.name, metric.show(statistics.fmean(values)), "", meaning))
    return found
