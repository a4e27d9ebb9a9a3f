import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from simjax import report
from simjax.core import InputError
from simjax.report import _write
from simjax.report._run import read_run
from tests.report.conftest import make_runs
from tests.report.reading import assert_self_contained, read_html, table_row

FEW_SHOT = {"5-way 1-shot": {"accuracy": 0.9132, "accuracy_interval": [0.9061, 0.9203], "ways": 5, "shots": 1}}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Return a run with all sections and its report."""
    run = make_runs(tmp_path_factory.mktemp("runs"))(heads=3, dimensions=2, report={"few_shot": FEW_SHOT})
    report.write(run)
    return run


def test_the_page_is_well_formed_self_contained_and_complete(written):
    run = written
    page = read_html(run / "report.html")
    assert_self_contained(page)
    titles = re.findall(r"^## (.*)$", (run / "report.md").read_text(), re.MULTILINE)
    assert titles == ["Mistakes", "Same class or not?", "Classes", "Nearest neighbours", "Attention",
                      "New classes from few images", "Training", "All numbers", "How to reproduce"]  # fmt: skip
    assert len(page.named("h1")) == 1
    assert {f"#{heading['id']}" for heading in page.named("h2") if "id" in heading} <= {
        link["href"] for link in page.named("a")
    }
    for written in (": 98.6%.", "would reach 10.3%", "98.61%", "98.33%", "90.32%", "0.9931", "3.14%", "37,254",
                    "39.6 ms", "1 m 23 s", "3,230", "91.32% (90.61–92.03%)", "5f3a", "64,620", "5.08% (2.00–8.13%)",
                    "at least 0.6123", "(91%)"):  # fmt: skip
        assert written in page.text
    assert {a.get("scope") for a in page.named("th")} == {"row", "col"}
    assert all(image["alt"] for image in page.named("img"))
    charts = [svg for svg in page.named("svg") if svg.get("class") == "chart"]
    assert len(charts) == len(list((run / "figures").iterdir())) == 7
    assert all(len(chart["aria-label"] or "") > 30 for chart in charts)
    assert (run / "report.html").stat().st_size < 1.5e6


def test_the_markdown_names_all_charts_which_have_real_text_on_white(written):
    run = written
    named = re.findall(r"\]\(figures/([\w-]+\.svg)\)", (run / "report.md").read_text())
    assert sorted(named) == sorted(p.name for p in (run / "figures").iterdir())
    assert set(named) == {f"{name}.svg" for name in ("loss", "accuracy", "embeddings", "scores", "roc", "det",
                                                     "reliability")}  # fmt: skip
    for name in named:
        svg = ElementTree.fromstring((run / "figures" / name).read_text())
        assert len(list(svg.iter("{http://www.w3.org/2000/svg}text"))) > 2, name
        first = next(svg.iter("{http://www.w3.org/2000/svg}path"))
        assert "fill: #ffffff" in first.attrib["style"]


def test_charts_of_the_page_have_the_colours_of_the_theme(written):
    charts = "".join(re.findall(r"<svg class=.*?</svg>", (written / "report.html").read_text(), re.DOTALL))
    assert set(re.findall(r"#[0-9a-f]{6}\b", charts)) == set()
    assert "var(--blue)" in charts


def test_every_chart_offers_its_data(written):
    page = read_html(written / "report.html")
    files = {link["download"]: unquote(link["href"] or "") for link in page.named("a") if "download" in link}
    assert set(files) == {f"{p.stem}.csv" for p in (written / "figures").iterdir()}
    assert files["scores.csv"].split("\n")[:2] == ["data:text/csv;charset=utf-8,from,to,same,different", "0.0,0.1,0,9"]


def test_figures_of_an_earlier_report_are_deleted(make_run):
    run = make_run(steps=5)
    (run / "figures").mkdir()
    (run / "figures" / "old.svg").write_bytes(b"")
    report.write(run)
    assert not (run / "figures" / "old.svg").exists()
    assert (run / "figures" / "roc.svg").exists()


def test_sections_without_data_are_omitted_and_missing_numbers_are_dashes(make_run):
    run = make_run()
    for name in ("samples.npz", "predictions.npz", "metrics.jsonl"):
        (run / name).unlink()
    content = json.loads((run / "report.json").read_text())
    kept = {"model": "cnn", "dataset": "digits", "accuracy": 0.5, "test_loss": float("nan")}
    (run / "report.json").write_text(json.dumps(dict.fromkeys(content) | kept))
    report.write(run)
    markdown = (run / "report.md").read_text()
    assert re.findall(r"^## (.*)$", markdown, re.MULTILINE) == ["All numbers", "How to reproduce"]
    assert table_row(markdown, "Accuracy")[1] == "50.00%"
    for first in ("k-NN accuracy", "Test loss", "ROC AUC", "Parameters", "Step time", "Training time"):
        assert table_row(markdown, first)[1] == "–"
    for text in (markdown, read_html(run / "report.html").text):
        visible = text.split("Settings")[0]  # settings are JSON, where null is a value
        assert not re.search(r"\b(None|nan|null|inf)\b", visible)
    assert list((run / "figures").iterdir()) == []


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=https://example.com/x onerror=alert(1)>',
    "$\\frac{1}{$",
    "a|b `c` *d* _e_",
    "_hidden\n# heading",
    "猫 \udcff\u202e",
]


def test_class_names_with_markup_are_shown_as_text(make_run):
    confusion = (np.eye(6, dtype=int) * 9 + 1).tolist()
    run = make_run(names=HOSTILE, dimensions=2, report={"confusion": confusion, "dataset": "folder:<b>/|x"})
    report.write(run)
    page = read_html(run / "report.html")
    assert_self_contained(page)
    assert HOSTILE[0] in page.text
    assert "folder:<b>/|x" in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    markdown = (run / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert "folder:&lt;b&gt;/\\|x" in markdown
    assert not re.search(r"^# heading", markdown, re.MULTILINE)
    assert "\u202e" not in markdown
    assert "猫" in markdown


@pytest.mark.usefixtures("undrawn")
def test_backticks_in_a_command_do_not_end_its_code_block(make_run):
    run = make_run()
    config = json.loads((run / "config.json").read_text())
    config["command"] = "train.py --out '```'\n# boo"
    (run / "config.json").write_text(json.dumps(config))
    report.write(run)
    assert "````\ntrain.py --out '```'\n# boo\n````" in (run / "report.md").read_text()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("classes", [2, 20, 21, 300])
def test_many_classes_have_a_table_of_the_lowest_ones_instead_of_a_matrix(make_run, classes):
    run = make_run(names=[f"class {i}" for i in range(classes)])
    report.write(run)
    page, markdown = read_html(run / "report.html"), (run / "report.md").read_text()
    assert ("matrix" in {table["class"] for table in page.named("table")}) == (classes <= 20)
    assert (f"The 20 classes with the lowest accuracy, of {classes}" in page.text) == (classes > 20)
    assert ("The most frequent confusions: such a test image" in markdown) == (classes > 20)
    assert (run / "report.html").stat().st_size < 1.5e6


def test_losses_of_mined_batches_are_not_compared_with_those_of_validation_images(make_run):
    run = make_run(settings={"loss": {"samples_per_class": 4}}, steps=5)
    report.write(run)
    assert {"training-loss.svg", "validation-loss.svg", "accuracy.svg"} < {p.name for p in (run / "figures").iterdir()}


@pytest.mark.usefixtures("undrawn")
def test_the_number_of_sections_is_that_of_the_progress(make_run):
    begun: list[str] = []
    report.write(make_run(steps=5), begun.append)
    assert len(set(begun)) == len(begun) == report.SECTIONS


def test_pairs_tell_score_decision_and_whether_it_is_right(make_run):
    run = make_run(steps=5)
    samples = dict(np.load(run / "samples.npz"))
    samples["pair_labels"][:2] = [[3, 3], [3, 4]]
    samples["pair_scores"][:2], samples["pair_probability"][:2] = [0.3, 0.8], [0.1, 0.9]
    np.savez(run / "samples.npz", **samples)
    report.write(run)
    text = read_html(run / "report.html").text
    assert "Judged different: missed match. Score\u00a00.30, P(same)\u00a010%" in text
    assert "Judged same: false match. Score\u00a00.80, P(same)\u00a090%" in text
    assert "Judged same: right. Score" in text


def test_file_names_of_test_images_are_shown(make_run):
    run = make_run(steps=5)
    predictions = dict(np.load(run / "predictions.npz"))
    predictions["path"] = np.array([f"/photos/ann/{i}.png" for i in range(400)])
    np.savez(run / "predictions.npz", **predictions)
    report.write(run)
    samples = np.load(run / "samples.npz")
    text = read_html(run / "report.html").text
    for name in ("mistake_index", "query_index", "pair_index", "neighbour_index"):
        assert f"ann/{samples[name].ravel()[0]}.png" in text, name


@pytest.mark.slow
def test_a_page_with_large_colour_photographs_is_below_3_megabytes(make_run):
    run = make_run(channels=3, size=224, heads=4, steps=5)
    report.write(run)
    assert (run / "report.html").stat().st_size < 3e6


@pytest.mark.usefixtures("undrawn")
def test_the_lowest_accuracies_and_the_most_frequent_confusion_are_in_the_text(make_run):
    run = make_run(names=["cat", "dog", "emu"], report={"confusion": [[7, 3, 0], [1, 9, 0], [0, 0, 0]]})
    report.write(run)
    markdown = (run / "report.md").read_text()
    expected = "Classes with mistakes: cat (3 of 10 wrong), dog (1 of 10 wrong). Most frequent"
    assert f"{expected} confusion: cat taken for dog, 3 times." in markdown


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        ([[9, 1, 0], [1, 8, 1], [0, 0, 10]], "No confusion occurs more than once."),
        ([[8, 2, 0], [0, 8, 2], [0, 0, 10]], "Most frequent confusion: a taken for b, b taken for c, 2 times each."),
        ([[5, 0, 0], [0, 5, 0], [0, 0, 5]], "All test images are classified correctly."),
    ],
)
def test_no_confusion_is_called_the_most_frequent_one_if_others_are_as_frequent(make_run, confusion, expected):
    run = make_run(names=["a", "b", "c"], report={"confusion": confusion})
    report.write(run)
    assert expected in (run / "report.md").read_text()


@pytest.mark.usefixtures("undrawn")
def test_names_of_test_classes_are_used_if_they_differ_from_the_training_classes(make_run):
    run = make_run(data={"test_class_names": [f"new {i}" for i in range(10)]})
    report.write(run)
    assert "largest share of mistakes: new " in (run / "report.md").read_text()


@pytest.mark.slow
def test_writing_again_gives_the_same_bytes(written):
    run = written
    before = {p.name: p.read_bytes() for p in [run / "report.md", run / "report.html", *(run / "figures").iterdir()]}
    report.write(run)
    after = {p.name: p.read_bytes() for p in [run / "report.md", run / "report.html", *(run / "figures").iterdir()]}
    assert before == after


@pytest.mark.usefixtures("undrawn")
def test_a_failure_does_not_change_the_former_report(make_run, monkeypatch):
    run = make_run()
    report.write(run)
    before = (run / "report.md").read_text(), (run / "report.html").read_text()

    def fail(page):
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(_write, "to_html", fail)
    (run / "metrics.jsonl").unlink()
    with pytest.raises(RuntimeError, match="disk on fire"):
        report.write(run)
    assert ((run / "report.md").read_text(), (run / "report.html").read_text()) == before
    assert not list(run.rglob("*.part"))


@pytest.mark.parametrize("name", ["report.json", "config.json"])
def test_a_folder_that_is_not_a_finished_run_is_refused(make_run, name):
    run = make_run()
    (run / name).unlink()
    with pytest.raises(InputError, match=rf"finished run, got .*, which has no {name}"):
        report.write(run)
    with pytest.raises(InputError, match="which is not a folder"):
        report.write(run / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("report.json", b"{", r"report\.json: not valid JSON"),
        ("report.json", b"[1]", r"report\.json: expected a JSON object, got list"),
        ("config.json", b"\xff", r"config\.json: cannot be read"),
        ("metrics.jsonl", b'{"step": 1}\n{"ste', r"metrics\.jsonl, line 2: not valid JSON"),
        ("samples.npz", b"PK\x03\x04 cut off", r"samples\.npz: cannot be read as an \.npz file"),
        ("predictions.npz", b"", r"predictions\.npz: cannot be read as an \.npz file"),
    ],
)
def test_an_error_names_the_broken_file(make_run, name, content, message):
    run = make_run()
    (run / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        report.write(run)
    assert not (run / "report.html").exists()


def test_the_last_values_of_a_step_that_was_logged_twice_are_used(make_run):
    run = make_run()
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}, {"step": 2, "validation_loss": 8.0},
             {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.5}]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_run(run)
    assert found.series("loss") == ([1, 2, 3], [3, 2, 1.5])
    assert found.series("validation_loss") == ([2], [8])


@pytest.mark.slow
def test_neither_matplotlib_is_imported_early_nor_pyplot_at_all(make_run):
    code = (
        "import sys; from simjax import report; assert 'matplotlib' not in sys.modules; "
        "report.write(sys.argv[1]); assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(make_run(steps=5))], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0
