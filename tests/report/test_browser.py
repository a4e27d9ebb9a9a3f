"""Pages in a real browser: no request, no error, nothing that overflows, accessible, sorting, images of points."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from simjax import report
from simjax.report import ImageRow, Thumbnail, write_image_rows
from simjax.report._explanation import Explanation, write_explanation
from tests.report.conftest import make_runs
from tests.report.test_study import runs as study_runs
from tests.report.test_study import write_plan

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
AXE = Path(os.environ.get("SIMJAX_AXE", "axe.min.js"))  # of the npm package axe-core
WIDTHS, THEMES = (1280, 400), ("light", "dark")
PAGES = ("run", "hostile", "many", "compare", "study", "why", "rows")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Write a page of each kind, with hostile, long and many names."""
    folder = tmp_path_factory.mktemp("pages")
    make = make_runs(folder)
    hostile = ["<img src=/stolen onerror=console.error(1)>", "<script>console.error(1)</script>"]
    names = [*hostile, *(f"class_with_a_very_long_name_{i:04}" for i in range(8))]
    runs = {
        "run": make("run", heads=4, report={"few_shot": None}),
        "hostile": make("hostile", names=names, channels=3, size=64),
        "many": make("many", names=[f"a rather long name of person {i}" for i in range(600)]),
    }
    for run in runs.values():
        report.write(run)
    others = [make(f"{model}{seed}", settings={"model": model, "seed": seed}, steps=5,
                   left_out={"accuracy": 0.9 + 0.01 * np.random.default_rng(seed).normal(size=40)})
              for model in ("cnn", "vit") for seed in (0, 1, 2)]  # fmt: skip
    report.compare(others, folder / "compare")
    rows = [ImageRow("a query", [Thumbnail(None, ["first", "a/long/path/of/a/file.png"], True)])]
    write_image_rows(folder / "rows.html", "rows", "lead", rows)
    (folder / "study").mkdir()
    study(folder / "study")
    write_explanation(folder / "why.html", "a and b", "lead", explanation())
    found = {name: run / "report.html" for name, run in runs.items()}
    others = {"compare": "compare/compare.html", "rows": "rows.html", "study": "study/study.html", "why": "why.html"}
    return found | {name: folder / page for name, page in others.items()}


def study(folder: Path) -> None:
    """Write the page of a study with all parts of an analysis."""
    networks = ["cnn-dot", "cnn-cosine", "vit-dot", "vit-cosine"]
    write_plan(folder, {name: study_runs(0.02, 10 * i) for i, name in enumerate(networks)})
    random = np.random.default_rng(0)
    layers = {"cnn": [f"{i}.Convolution" for i in range(5)], "vit": [f"block.{i}" for i in range(4)]}
    curve = {"amount": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], "accuracy": [0.9] * 6, "accuracy_interval": [[0.88, 0.92]] * 6}
    calibration = {"confidence": 0.9, "accuracy": 0.95, "expected_calibration_error": 0.05,
                   "expected_calibration_error_interval": [0.03, 0.07]}  # fmt: skip
    pictures = {
        **{f"{model}_filters": random.normal(size=(32, 3, 3, 1)) for model in ("cnn", "vit")},
        **{f"{model}_map": random.uniform(size=(3, 16, 16)) for model in ("cnn", "vit")},
        **{f"{model}_class": np.arange(3) % 2 for model in ("cnn", "vit")},
        **{f"{model}_neighbour": np.zeros((2, 5, 16, 16, 1), np.uint8) for model in ("cnn", "vit")},
        **{f"{model}_neighbour_label": np.ones((2, 5), int) for model in ("cnn", "vit")},
        "image": np.zeros((3, 16, 16, 1), np.uint8),
        "label": np.ones(3, int),
        "count": np.array([3, 100]),
        "query": np.zeros((2, 16, 16, 1), np.uint8),
        "query_label": np.ones(2, int),
    }
    np.savez(folder / "pictures-0.npz", **pictures)  # pyright: ignore[reportArgumentType]
    analysis = {
        "layers": [
            {"a": a, "b": b, "kind": kind, "rows": layers[a[:3]], "columns": layers[b[:3]],
             "cka": random.uniform(size=(len(layers[a[:3]]), len(layers[b[:3]]))).tolist()}
            for a, b, kind in (("cnn-dot", "vit-dot", "model"), ("cnn-dot", "cnn-dot", "seeds"))
        ],
        "probes": {name: {layer: {"accuracy": 0.9} for layer in layers[name[:3]]} for name in networks},
        "images": 100,
        "uniform_attention_distance": dict.fromkeys(networks[2:], 2.0),
        "attention_distance": {name: [[1.0, 2.0], [1.5, 2.5]] for name in networks[2:]},
        "robustness": {name: {"noise": curve, "blur": curve} for name in networks},
        "calibration": dict.fromkeys(networks, calibration),
        "pictures": "pictures-0.npz",
    }  # fmt: skip
    (folder / "analysis.json").write_text(json.dumps({"digits, softmax": analysis}))
    report.write_study(folder)


def explanation() -> Explanation:
    """Return an explanation of a pair with attention."""
    random, share = np.random.default_rng(0), np.linspace(0, 1, 5)
    return Explanation(
        names=["a.png", "a_file_with_a_long_name_0001.png"],
        images=random.integers(0, 255, (2, 28, 28, 1)).astype(np.uint8),
        heat_maps={"grad_cam": random.normal(size=(2, 28, 28)), "occlusion": random.normal(size=(2, 28, 28))},
        attention=random.uniform(size=(2, 4, 4, 28, 28)),
        patch_size=7,
        share=share,
        curves={"grad_cam": random.uniform(size=(2, 2, 5)), "occlusion": random.uniform(size=(2, 2, 5))},
        random_curves=random.uniform(size=(3, 2, 2, 5)),
        score="cosine",
    )


def open_page(
    browser: Browser, path: Path, width: int = 1280, theme: Literal["light", "dark"] = "light"
) -> tuple[Page, list[str], list[str]]:
    """Open a page; return it with the errors of its console and its requests, which are filled as they occur."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    errors: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("data:") else requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_load_state("load")
    return page, errors, requests


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_makes_no_request_logs_no_error_and_does_not_overflow(browser, pages, name, width, theme):
    page, errors, requests = open_page(browser, pages[name], width, theme)
    assert errors == []
    assert requests == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 18, 18)"}[theme]
    assert pages[name].stat().st_size < 3e6
    page.close()


def test_errors_and_requests_of_a_page_are_observable(browser, tmp_path):
    """The test above relies on it."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='missing.png'><script>console.error('oops')</script>")
    page, errors, requests = open_page(browser, bad)
    assert "oops" in errors
    assert len(requests) == 2
    page.close()


@pytest.mark.skipif(not AXE.is_file(), reason="needs SIMJAX_AXE, the path of axe.min.js of the npm package axe-core")
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible(browser, pages, name, theme):
    page, _, _ = open_page(browser, pages[name], 1280, theme)
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found["violations"]] == []
    assert len(found["passes"]) > 10
    page.close()


def column(page: Page, number: int) -> list[str]:
    cells = page.locator(f"section[aria-labelledby] table.data >> nth=0 >> tbody tr > :nth-child({number})")
    return cells.all_inner_texts()


def test_tables_are_sorted_by_value_with_mouse_and_keyboard(browser, tmp_path):
    from simjax.report._page import Page, Section, Table
    from simjax.report._render import to_html

    times = ["1 m 05 s", "900 ms", "2.0 s", "–", "1 h 00 m"]
    numbers = ["1,234", "98.61% (97–99%)", "-3", "–", "0.5"]
    rows: list[Any] = [[name, *cells] for name, *cells in zip("cabed", times, numbers, strict=True)]
    file = tmp_path / "page.html"
    file.write_text(to_html(Page("t", "l", [Section("s", [Table(["name", "time", "number"], rows, "lrr")])])))
    page, errors, _ = open_page(browser, file)
    headers = page.locator("table.data thead th")
    headers.nth(1).get_by_role("button").click()
    assert column(page, 2) == ["900 ms", "2.0 s", "1 m 05 s", "1 h 00 m", "–"]
    headers.nth(2).get_by_role("button").press("Enter")
    assert column(page, 3) == ["-3", "0.5", "98.61% (97–99%)", "1,234", "–"]
    assert headers.nth(2).get_attribute("aria-sort") == "ascending"
    assert headers.nth(1).get_attribute("aria-sort") == "none"
    headers.nth(0).get_by_role("button").click()
    headers.nth(0).get_by_role("button").click()
    assert column(page, 1) == list("edcba")
    assert errors == []
    page.close()


def test_the_image_of_a_point_is_shown_by_mouse_and_keyboard(browser, pages):
    page, errors, _ = open_page(browser, pages["run"])
    tip = page.locator("#tip")
    marks = page.locator("[id^=points-] use")
    assert marks.count() == 180
    assert tip.is_hidden()
    box: Any = marks.nth(7).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert tip.is_visible()
    assert tip.locator(".image").evaluate("(image) => image.offsetWidth") == 96
    page.mouse.move(5, 5)
    assert tip.is_hidden()
    page.locator("svg.chart[tabindex]").focus()
    page.keyboard.press("ArrowRight")
    first = tip.locator(".image").evaluate("(image) => image.style.backgroundPosition")
    page.keyboard.press("ArrowRight")
    assert tip.locator(".image").evaluate("(image) => image.style.backgroundPosition") != first
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    assert errors == []
    page.close()
