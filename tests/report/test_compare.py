import json
import re
import statistics

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


def column(markdown, names, title):
    header = table_row(markdown, "Run")
    place = next(i for i, cell in enumerate(header) if cell.startswith(title))
    return [table_row(markdown, name)[place] for name in names]


def test_the_best_of_each_column_is_marked(make_run, tmp_path):
    runs = [
        make_run("a", report=scores(accuracy=0.91, eer=0.05, step=40, parameters=1000)),
        make_run("b", report=scores(accuracy=0.95, eer=0.02, step=60, parameters=2000), settings={"model": "vit"}),
        make_run("c", report=scores(accuracy=0.95, eer=None, step=20, parameters=1000), settings={"model": "dnn"}),
    ]
    report.compare(runs, tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert column(markdown, "abc", "Accuracy") == ["91.00%", "**95.00%** ★", "**95.00%** ★"]
    assert column(markdown, "abc", "Equal error rate") == ["5.00%", "**2.00%** ★", "–"]
    assert column(markdown, "abc", "Parameters") == ["**1,000** ★", "2,000", "**1,000** ★"]
    assert column(markdown, "abc", "Step time") == ["40 ms", "60 ms", "**20 ms** ★"]
    content = json.loads((tmp_path / "out/compare.json").read_text())
    assert [run["accuracy"] for run in content["runs"]] == [0.91, 0.95, 0.95]
    assert content["runs"][2]["verification.equal_error_rate"] is None
    assert "accuracy" in content["runs"][1]["best_in"]
    assert "parameters" not in content["runs"][1]["best_in"]


def test_the_page_is_well_formed_self_contained_and_has_both_curves(make_run, tmp_path):
    runs = [make_run("a"), make_run("<b>b</b>", settings={"objective": "triplet"})]
    report.compare(runs, tmp_path / "new/out")
    out = tmp_path / "new/out"
    assert {p.name for p in out.iterdir()} == {"compare.md", "compare.html", "compare.json", "figures"}
    assert {p.name for p in (out / "figures").iterdir()} == {"loss.png", "accuracy.png"}
    page = read_html(out / "compare.html")
    assert_self_contained(page)
    assert len(page.named("img")) == 2
    assert len(page.named("strong")) > 5
    assert "b" not in {tag for tag, _ in page.tags}
    assert table_row((out / "compare.md").read_text(), "objective") == ["objective", "softmax", "triplet"]


def test_accuracies_of_classifiers_and_of_neighbours_are_distinguished(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", report={"accuracy_of": "knn"}, settings={"objective": "triplet"})]
    report.compare(runs, tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert column(markdown, "ab", "Accuracy") == ["**98.61% (classifier)** ★", "**98.61% (knn)** ★"]
    assert "accuracies are not comparable" in markdown
    report.compare([runs[0], make_run("c", settings={"model": "vit"})], tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert table_row(markdown, "Run")[1] == "Accuracy (classifier)"
    assert "accuracies are not comparable" not in markdown


def test_runs_that_differ_in_their_seed_have_a_mean_and_a_standard_deviation(make_run, tmp_path):
    accuracies = [0.90, 0.92, 0.97]
    runs = [make_run(f"cnn{i}", settings={"seed": i, "data_dir": f"/{i}"}, report=scores(accuracy=a))
            for i, a in enumerate(accuracies)]  # fmt: skip
    runs.append(make_run("vit", settings={"model": "vit"}, report=scores(accuracy=0.99)))
    report.compare(runs, tmp_path / "out")
    (group,) = json.loads((tmp_path / "out/compare.json").read_text())["over_seeds"]
    assert group["runs"] == ["cnn0", "cnn1", "cnn2"]
    assert group["seeds"] == [0, 1, 2]
    assert group["accuracy"]["mean"] == pytest.approx(0.93)
    assert group["accuracy"]["standard_deviation"] == pytest.approx(statistics.stdev(accuracies))
    assert table_row((tmp_path / "out/compare.md").read_text(), "Accuracy") == ["Accuracy", "93.00% ± 3.61%"]


def test_runs_with_different_nested_settings_are_not_averaged(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", settings={"seed": 1, "optimizer": {"learning_rate": 0.1, "name": "adamw"}})]
    report.compare(runs, tmp_path / "out")
    assert json.loads((tmp_path / "out/compare.json").read_text())["over_seeds"] == []
    markdown = (tmp_path / "out/compare.md").read_text()
    assert "Mean over seeds" not in markdown
    assert table_row(markdown, "optimizer.learning\\_rate") == ["optimizer.learning\\_rate", "0.001", "0.1"]


def test_runs_with_the_same_folder_name_are_named_by_their_paths(make_run, tmp_path):
    runs = [make_run("x/run"), make_run("y/run", settings={"model": "vit"})]
    report.compare(runs, tmp_path / "out")
    names = [run["name"] for run in json.loads((tmp_path / "out/compare.json").read_text())["runs"]]
    assert names == [str(run) for run in runs]


def test_training_curves_are_shown_if_a_run_has_no_validation(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", settings={"model": "vit"})]
    (runs[1] / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "accuracy": null}\n')
    report.compare(runs, tmp_path / "out")
    markdown = (tmp_path / "out/compare.md").read_text()
    assert "Training loss of each run by step" in markdown
    assert "Training accuracy by step: a ends at" in markdown
    assert "b ends at 2.0000." in markdown


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
@pytest.mark.parametrize("broken", ["to_html", "replace_folder"])
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


def test_equal_values_of_two_runs_are_both_marked(make_run, tmp_path):
    runs = [make_run("a"), make_run("b", settings={"seed": 1})]
    report.compare(runs, tmp_path / "out")
    first, second = (table_row((tmp_path / "out/compare.md").read_text(), name)[1:] for name in "ab")
    assert first == second
    assert all(re.fullmatch(r"\*\*.+\*\* ★", cell) for cell in first)
