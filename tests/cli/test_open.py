"""The option --open: the page of a command is opened in the web browser."""

import shutil
from pathlib import Path

import pytest

from simjax.cli import main
from tests.cli.runs import fails


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that are opened in a browser, in place of opening them."""
    addresses: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(addresses.append(address)))  # False: no browser
    return addresses


def test_each_page_is_opened_by_its_absolute_address_once_it_is_written(place, opened):
    shutil.copytree("run", "again")
    main(["gallery", "create", "G", "--encoder", "run", "--images", "images"])
    gallery = (
        "gallery duplicates G --min-score 0.999",
        "gallery search G images/a/0.png",
        "gallery recommend G --like 1",
    )
    for command, page in (
        ("compare run again --out a&b", "a&b/compare.html"),
        ("explain run images/a/0.png --out why.html", "why.html"),
        *((f"{command} --html page.html", "page.html") for command in gallery),
        ("gallery identify G images/a/0.png --html page.html", "page.html"),
    ):
        Path(page).unlink(missing_ok=True)
        main(command.split())
        assert opened == []
        main([*command.split(), "--open"])
        assert opened == [(place / page).as_uri()]
        assert Path(page).is_file()
        opened.clear()


def test_a_report_that_is_written_again_is_opened(place, opened, monkeypatch, capsys):
    written = []
    monkeypatch.setattr("simjax.report.write", lambda run, projection: written.append((str(run), projection)))
    main(["report", "run", "--projection", "tsne", "--open"])
    assert written == [("run", "tsne")]
    assert opened == [(place / "run/report.html").as_uri()]
    assert capsys.readouterr().out == "report: run/report.html\n"


def test_the_report_of_a_training_is_opened(place, opened, capsys):
    main(["train", "--resume", "--out", "run", "--open"])
    assert opened == [(place / "run/report.html").as_uri()]
    assert capsys.readouterr().out.splitlines()[-1] == "report: run/report.html"


@pytest.mark.parametrize(
    "command", ["search G images/a/0.png", "recommend G --like 1", "identify G x.png", "duplicates G"]
)
def test_without_a_page_there_is_none_to_open(opened, capsys, command):
    expected = "error: --open: expected a page to open; name its file with `--html`\n"
    assert fails(capsys, "gallery", *command.split(), "--open") == expected
    assert opened == []
