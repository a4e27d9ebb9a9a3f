import json
import re
import statistics

import numpy as np
import pytest

from simjax import report
from simjax.core import InputError
from simjax.report import _compare
from tests.report.reading import assert_self_contained, read_html, table_row

pytestmark = pytest.mark.usefixtures("undrawn")


def scores(accuracy=0.9, eer: float | None = 0.05, step=40.0, parameters=1000):
    verification = {"roc_auc": 0.99, "equal_error_rate": eer}
    return {
        "accuracy": accuracy,
        "verification": verification,
        "step_milliseconds": step,
        "parameters": parameters,
    }


def left_out(value, seed=0):
    """Return a rate without each of 40 identities, which other seeds find easy and hard."""
    return value + 0.002 * np.cos(np.arange(40) * (seed + 1))


def row(out, name):
    """Return the cells of the first row of a section with this name, by the titles of the columns."""
    _, _, markdown = (out / "compare.md").read_text().partition("\n## ")
    table = markdown[: markdown.index(f"\n| {name} |")].rpartition("\n\n")[2]
    return dict(zip(table_row(table, table.split(" |")[0].removeprefix("| ")), table_row(markdown, name), strict=True))


def test_results_are_shown_with_their_intervals(make_run, tmp_path):
    runs = [
        make_run("a", report=scores(accuracy=0.91) | {"accuracy_interval": [0.9, 0.92]}),
        make_run("b", report=scores(accuracy=0.95, eer=None), settings={"model": "vit"}),
    ]
    report.compare(runs, tmp_path / "out")
    first, second = (row(tmp_path / "out", f"{model}, seed 0") for model in ("CNN", "ViT"))
    assert (first["Accuracy"], second["Accuracy"]) == ("91.00% (90.00–92.00%)", "95.00%")
    assert (first["Equal error rate"], second["Equal error rate"]) == ("5.00%", "–")
    content = json.loads((tmp_path / "out/compare.json").read_text())
    assert [run["accuracy"] for run in content["runs"]] == [0.91, 0.95]
    assert [run["accuracy_interval"] for run in content["runs"]] == [[0.9, 0.92], None]
    assert content["runs"][1]["verification.equal_error_rate"] is None
    assert content["differences"] == []


def test_single_runs_are_compared_as_encoders_and_none_is_marked(make_run, tmp_path):
    runs = [
        make_run("a", report=scores(accuracy=0.9), left_out={"accuracy": left_out(0.9)}),
        make_run("b", report=scores(accuracy=0.95), left_out={"accuracy": left_out(0.95)}, settings={"model": "vit"}),
    ]
    report.compare(runs, tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert "about these trained models only" in markdown
    assert "★" not in markdown
    assert "another seed may decide otherwise" in markdown
    (found,) = json.loads((tmp_path / "out/compare.json").read_text())["differences"]
    assert (found["metric"], found["a"], found["b"], found["runs"]) == ("accuracy", "ViT", "CNN", 1)
    assert found["difference"] == pytest.approx(0.05)
    assert found["difference_interval"] == pytest.approx([-0.0249, 0.1249], abs=1e-4)  # 3 of 40
    assert not found["shown"]


def test_estimates_over_other_images_are_not_compared(make_run, tmp_path):
    runs = [
        make_run("a", report=scores(accuracy=0.9), left_out={"accuracy": left_out(0.9)}),
        make_run(
            "b", report=scores(accuracy=0.95), left_out={"accuracy": left_out(0.95)[1:]}, settings={"model": "vit"}
        ),
    ]
    report.compare(runs, tmp_path / "out")
    assert json.loads((tmp_path / "out/compare.json").read_text())["differences"] == []


@pytest.mark.parametrize(("others", "share"), [(1, "15%"), (7, "100%")])
def test_the_probability_of_an_interval_without_0_is_bounded_by_the_sum_over_all(make_run, tmp_path, others, share):
    values = {"accuracy": left_out(0.9), "verification.equal_error_rate": left_out(0.05)}
    values |= {"verification.roc_auc": left_out(0.99)}
    runs = [make_run(f"{i}", report=scores(), settings={"epochs": i}, left_out=values) for i in range(1 + others)]
    report.compare(runs, tmp_path / "out")
    expected = f"one or more of {3 * others} would exclude 0 by chance with a probability of up to {share}."
    assert expected in (tmp_path / "out/compare.md").read_text()


def recipes(make_run, values, metric, **reports):
    """Write runs of two recipes with three seeds each."""
    name = f"verification.{metric}" if metric == "equal_error_rate" else metric
    found = []
    for model, of_model in values.items():
        for seed, value in enumerate(of_model):
            result = scores(**{"eer" if metric == "equal_error_rate" else metric: value}) | reports.get(model, {})
            settings = {"model": model, "seed": seed, "data_dir": f"/{seed}"}
            left = {name: left_out(value, seed=len(found))}
            found.append(make_run(f"{model}{seed}", settings=settings, report=result | {"seed": seed}, left_out=left))
    return found


@pytest.mark.parametrize(("metric", "best"), [("accuracy", "vit"), ("equal_error_rate", "cnn")])
def test_a_recipe_that_is_shown_to_be_better_is_marked(make_run, tmp_path, metric, best):
    values = {"cnn": [0.10, 0.11, 0.12], "vit": [0.30, 0.31, 0.30]}
    report.compare(recipes(make_run, values, metric), tmp_path / "out")
    title = {"accuracy": "Accuracy"}.get(metric, "Equal error rate")
    cells = {model: row(tmp_path / "out", model)[title] for model in ("CNN", "ViT")}
    assert ["★" in cell for cell in cells.values()] == [best == "cnn", best == "vit"]
    assert "no difference shown" not in row(tmp_path / "out", title).values()
    (found,) = json.loads((tmp_path / "out/compare.json").read_text())["differences"]
    assert found["shown"]
    assert found["runs"] == 3


def test_a_difference_that_may_be_chance_is_not_marked(make_run, tmp_path):
    values = {"cnn": [0.90, 0.92, 0.97], "vit": [0.93, 0.95, 0.94]}
    report.compare(recipes(make_run, values, "accuracy"), tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert "★ marks the best recipe" in markdown
    assert "★ |" not in markdown
    assert "| Accuracy | ViT minus CNN | 94.00% | 93.00% | +1.00 | -7.74 to +9.74 | no difference shown |" in markdown
    assert not json.loads((tmp_path / "out/compare.json").read_text())["differences"][0]["shown"]


def test_runs_of_other_seeds_are_not_compared_in_pairs(make_run, tmp_path):
    """Which run stands beside which has no meaning then, so that it must not change the interval."""
    intervals = []
    for number, values in enumerate(([0.80, 0.84, 0.88], [0.88, 0.84, 0.80])):
        runs = []
        for model, first_seed, of_model in (("cnn", 0, [0.90, 0.94, 0.98]), ("vit", 5, values)):
            for seed, value in enumerate(of_model, first_seed):
                settings, result = {"model": model, "seed": seed}, scores(accuracy=value) | {"seed": seed}
                left = {"accuracy": left_out(value, seed=1)}
                runs.append(make_run(f"{number}{model}{seed}", settings=settings, report=result, left_out=left))
        report.compare(runs, tmp_path / f"out{number}")
        (found,) = json.loads((tmp_path / f"out{number}/compare.json").read_text())["differences"]
        intervals.append(found["difference_interval"])
    assert intervals[0] == pytest.approx(intervals[1])
    assert intervals[0][1] - intervals[0][0] > 0.15  # the seeds of each recipe vary


def test_a_recipe_is_marked_only_if_it_is_better_than_every_other(make_run, tmp_path):
    values = {"cnn": [0.10, 0.11, 0.12], "vit": [0.30, 0.31, 0.30], "dnn": [0.31, 0.30, 0.31]}
    report.compare(recipes(make_run, values, "accuracy"), tmp_path / "out")
    assert "★ |" not in (tmp_path / "out/compare.md").read_text()


def test_accuracies_of_a_classifier_and_of_neighbours_have_no_difference(make_run, tmp_path):
    values = {"cnn": [0.10, 0.11, 0.12], "vit": [0.30, 0.31, 0.30]}
    report.compare(recipes(make_run, values, "accuracy", vit={"accuracy_of": "knn"}), tmp_path / "out")
    assert json.loads((tmp_path / "out/compare.json").read_text())["differences"] == []


def test_the_page_is_well_formed_self_contained_and_has_both_curves(make_run, tmp_path):
    runs = [make_run("a"), make_run("<b>b</b>", settings={"objective": "triplet"})]
    report.compare(runs, tmp_path / "new/out")
    out = tmp_path / "new/out"
    assert {p.name for p in out.iterdir()} == {"compare.md", "compare.html", "compare.json", "figures"}
    assert {p.name for p in (out / "figures").iterdir()} == {"loss.svg", "accuracy.svg", "accuracies.svg"}
    page = read_html(out / "compare.html")
    assert_self_contained(page)
    assert len(page.named("svg")) == 3
    assert "b" not in {tag for tag, _ in page.tags}
    assert table_row((out / "compare.md").read_text(), "objective") == ["objective", "softmax", "triplet"]


def test_accuracies_of_classifiers_and_of_neighbours_are_distinguished(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", report={"accuracy_of": "knn"}, settings={"objective": "triplet"})]
    report.compare(runs, tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert row(tmp_path / "out", "CNN, softmax, seed 0")["Accuracy"] == "98.61%, classifier"
    assert row(tmp_path / "out", "CNN, triplet, seed 0")["Accuracy"] == "98.61%, knn"
    assert "accuracies are not comparable" in markdown
    report.compare([runs[0], make_run("c", settings={"model": "vit"})], tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert row(tmp_path / "out", "ViT, seed 0")["Accuracy"] == "98.61%"
    assert "accuracies are not comparable" not in markdown


def test_runs_that_differ_in_their_seed_have_a_mean_and_a_standard_deviation(make_run, tmp_path):
    accuracies = [0.90, 0.92, 0.97]
    runs = [make_run(f"cnn{i}", settings={"seed": i, "data_dir": f"/{i}"}, report=scores(accuracy=a))
            for i, a in enumerate(accuracies)]  # fmt: skip
    runs.append(make_run("vit", settings={"model": "vit"}, report=scores(accuracy=0.99)))
    report.compare(runs, tmp_path / "out")
    group, single = json.loads((tmp_path / "out/compare.json").read_text())["recipes"]
    assert (single["runs"], single["accuracy"]) == ([str(runs[3])], {"mean": 0.99, "standard_deviation": None})
    assert group["runs"] == [str(run) for run in runs[:3]]
    assert group["seeds"] == [0, 1, 2]
    assert group["accuracy"]["mean"] == pytest.approx(0.93)
    assert group["accuracy"]["standard_deviation"] == pytest.approx(statistics.stdev(accuracies))
    assert [row(tmp_path / "out", model)["Accuracy"] for model in ("CNN", "ViT")] == ["93.00% ± 3.61%", "99.00%"]


def test_runs_with_different_nested_settings_are_not_averaged(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", settings={"seed": 1, "optimizer": {"learning_rate": 0.1, "name": "adamw"}})]
    report.compare(runs, tmp_path / "out")
    assert len(json.loads((tmp_path / "out/compare.json").read_text())["recipes"]) == 2
    markdown = (tmp_path / "out/compare.md").read_text()
    assert "## Results" not in markdown
    assert [recipe["name"] for recipe in json.loads((tmp_path / "out/compare.json").read_text())["recipes"]] == [
        "CNN, learning rate 0.001",
        "CNN, learning rate 0.1",
    ]
    assert table_row(markdown, "optimizer.learning\\_rate") == ["optimizer.learning\\_rate", "0.001", "0.1"]


def test_runs_of_one_recipe_and_seed_are_named_by_their_paths(make_run, tmp_path):
    runs = [make_run("x/run"), make_run("y/run")]
    report.compare(runs, tmp_path / "out")
    names = [run["name"] for run in json.loads((tmp_path / "out/compare.json").read_text())["runs"]]
    assert names == [f"CNN, seed 0 ({run})" for run in runs]


def test_training_curves_are_shown_if_a_run_has_no_validation(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", settings={"model": "vit"})]
    (runs[1] / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "accuracy": null}\n')
    report.compare(runs, tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert "Training loss of each run by training step" in markdown
    assert "Training accuracy of each run: CNN, seed 0 ends at" in markdown
    assert "ViT, seed 0 ends at 2.0000." in markdown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"dataset": "mnist"}}, r"got dataset 'digits' in .*a and 'mnist' in .*b$"),
        ({"settings": {"test_dataset": "mnist"}}, r"got test_dataset None in .* and 'mnist' in"),
        ({"data": {"image_shape": [32, 32, 3]}}, r"got image shape \[16, 16, 1\] in .* and \[32, 32, 3\] in"),
        ({"data": {"validation_images": 5}}, r"got number of validation images 237 in .* and 5 in"),
        ({"data": {"fingerprint": "0000"}}, r"got data fingerprint '5f3a' in .* and '0000' in"),
    ],
)
def test_runs_on_other_data_are_refused(make_run, tmp_path, changes, message):
    runs = [make_run("a"), make_run("b", **changes)]
    with pytest.raises(InputError, match=f"expected the same data and split in all runs, {message}"):
        report.compare(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fewer_than_two_runs_are_refused(make_run, tmp_path):
    for runs in ([], [make_run("a")]):
        with pytest.raises(InputError, match=f"expected two or more runs to compare, got {len(runs)}$"):
            report.compare(runs, tmp_path / "out")


def test_the_same_run_twice_is_refused(make_run, tmp_path):
    run = make_run("a")
    for again in (run, run / ".." / "a"):
        with pytest.raises(InputError, match="expected different runs, got .* which are the same folder"):
            report.compare([run, again], tmp_path / "out")


def test_a_folder_that_is_not_a_finished_run_is_refused(make_run, tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=r"got .*/b, which has no report\.json"):
        report.compare([make_run("a"), tmp_path / "b"], tmp_path / "out")


def test_an_error_names_the_broken_json_file(make_run, tmp_path):
    runs = [make_run("a"), make_run("b")]
    (runs[1] / "report.json").write_text('{"accuracy": ')
    with pytest.raises(InputError, match=r"b/report\.json: not valid JSON"):
        report.compare(runs, tmp_path / "out")


def test_an_output_folder_with_other_files_is_refused_and_not_changed(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", settings={"seed": 1})]
    with pytest.raises(InputError, match=r"earlier comparison, got .*a, which holds config\.json"):
        report.compare(runs, runs[0])
    report.compare(runs, tmp_path / "out")
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"which holds thesis\.txt"):
        report.compare(runs, tmp_path / "out")
    assert (tmp_path / "out/thesis.txt").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out: expected a folder, got .*file, which is a file"):
        report.compare(runs, tmp_path / "file")
    (tmp_path / "other/figures").mkdir(parents=True)
    with pytest.raises(InputError, match="which holds figures"):
        report.compare(runs, tmp_path / "other")


def test_an_empty_folder_and_a_former_comparison_are_replaced(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", settings={"seed": 1}), make_run("c", settings={"seed": 2})]
    out = tmp_path / "out"
    out.mkdir()
    report.compare(runs[:2], out)
    report.compare(runs, out)
    assert len(json.loads((out / "compare.json").read_text())["runs"]) == 3
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b", "c", "out"}


@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize("broken", ["write_page", "replace_folder"])
def test_a_failure_leaves_no_output_folder_or_the_former_comparison(make_run, tmp_path, monkeypatch, former, broken):
    runs, out = [make_run("a"), make_run("b", settings={"seed": 1})], tmp_path / "out"
    if former:
        report.compare(runs, out)
    before = {p.name: p.stat().st_ino for p in out.iterdir()} if former else None

    def fail(*arguments):
        raise OSError(28, "no space left")

    monkeypatch.setattr(_compare, broken, fail)
    with pytest.raises(InputError, match="out: cannot write .*out: no space left"):
        report.compare(runs, out)
    assert ({p.name: p.stat().st_ino for p in out.iterdir()} if out.exists() else None) == before
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b"} | ({"out"} if former else set())


def verdict(make_run, tmp_path, values):
    report.compare(recipes(make_run, values, "accuracy"), tmp_path / "out")
    return (tmp_path / "out/compare.md").read_text().split("\n\n")[1]


def test_the_verdict_names_the_better_recipe_with_the_interval_of_the_difference(make_run, tmp_path):
    found = verdict(make_run, tmp_path, {"cnn": [0.10, 0.11, 0.12], "vit": [0.30, 0.31, 0.30]})
    expected = (
        "ViT has a higher accuracy than CNN: 30.33% against 11.00%, or 251 against 320 mistakes in 360 test images."
    )
    assert found.startswith(expected)
    assert re.search(r"the difference is 19\.33 points, with a 95% interval from 1\d\.\d\d to 2\d\.\d\d\.$", found)
    assert "Means of 3 runs of each" in found


def test_a_difference_whose_interval_nearly_reaches_0_is_called_weak_evidence(make_run, tmp_path):
    found = verdict(make_run, tmp_path, {"cnn": [0.90, 0.925, 0.959], "vit": [0.967, 0.975, 0.99]})
    assert "the difference is 4.93 points, with a 95% interval from 0." in found
    assert found.endswith("The interval nearly reaches 0, so that this is weak evidence.")


def test_the_verdict_on_a_difference_that_may_be_chance_is_that_none_is_shown(make_run, tmp_path):
    found = verdict(make_run, tmp_path, {"cnn": [0.90, 0.92, 0.97], "vit": [0.93, 0.95, 0.94]})
    assert found.startswith("No difference between ViT and CNN is shown: accuracy 94.00% against 93.00%")
    assert "from -7.74 to 9.74" in found


def test_the_verdict_on_three_recipes_names_one_only_if_it_is_better_than_every_other(make_run, tmp_path):
    values = {"cnn": [0.10, 0.11, 0.12], "vit": [0.30, 0.31, 0.30], "dnn": [0.31, 0.30, 0.31]}
    assert verdict(make_run, tmp_path, values).startswith("No recipe is shown to have a higher accuracy")


def test_runs_are_linked_with_their_reports(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", settings={"model": "vit"})]
    report.write(runs[1])
    report.compare(runs, tmp_path / "out")
    links = re.findall(r"\[(.*?)\]\((.*?html)\)", (tmp_path / "out/compare.md").read_text())
    assert links == [("ViT, seed 0", "../b/report.html")]
    assert (tmp_path / "out" / links[0][1]).is_file()


def test_images_that_one_run_classifies_wrongly_are_counted_and_shown(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", settings={"model": "vit"}, report={"accuracy": 0.9})]
    predictions = dict(np.load(runs[1] / "predictions.npz"))
    wrong = np.load(runs[1] / "samples.npz")["mistake_index"]
    wrong = wrong[wrong < 360]
    predictions["predicted"] = predictions["predicted"].copy()
    predictions["predicted"][wrong] = (predictions["label"][wrong] + 1) % 10
    np.savez(runs[1] / "predictions.npz", **predictions)
    report.compare(runs, tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert f"| only CNN, seed 0 right | {len(wrong)} |" in markdown
    assert f"| both right | {360 - len(wrong)} |" in markdown
    true = predictions["label"][wrong[0]]
    assert f"true {true}, CNN, seed 0: {true}, ViT, seed 0: {(true + 1) % 10}" in markdown


def test_a_comparison_is_of_the_same_number_of_runs_and_its_verdict_follows_its_sign(make_run, tmp_path):
    values = {"cnn": [0.80, 0.81, 0.99, 0.99], "vit": [0.90, 0.91]}  # the mean of all runs of the CNN is higher, too
    found = verdict(make_run, tmp_path, values)
    assert found.startswith("ViT has a higher accuracy than CNN: 90.50% against 80.50%")
    assert "Means of 2 runs of each; the difference is 10.00 points" in found


def test_a_seed_counts_once(make_run, tmp_path):
    runs = []
    for model, value in (("cnn", 0.1), ("vit", 0.3)):
        for copy in (0, 1):
            settings, result = {"model": model, "data_dir": f"/{copy}"}, scores(accuracy=value) | {"seed": 0}
            left = {"accuracy": left_out(value, seed=1)}
            runs.append(make_run(f"{model}{copy}", settings=settings, report=result, left_out=left))
    report.compare(runs, tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert "This run of ViT has a higher accuracy than that of CNN" in markdown
    assert "Mean accuracy of 2 runs: 30.00% each" in markdown
    assert "this run of ViT is better" in markdown
    assert "★" not in markdown.replace("★ marks", "")
    (found,) = json.loads((tmp_path / "out/compare.json").read_text())["differences"]
    assert (found["runs"], found["shown"]) == (1, False)
