"""The report in a real browser: no requests, no errors, all pictures, light and dark."""

import http.server
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from simjax import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
         "--window-size=1100,5000"]  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH")]


def browse(address: str, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", *flags, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture
def served(tmp_path):
    """Serve the temporary folder; return the address and the requested paths."""
    requested = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, format, *arguments):
            requested.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requested
        server.shutdown()
        thread.join()


def test_the_report_makes_no_request_and_logs_no_error(make_run, served, tmp_path):
    address, requested = served
    hostile = ["<img src=/stolen onerror=console.log(1)>", "<script src=/stolen></script>"]
    run = make_run("run", names=hostile, heads=2, report={"confusion": [[9, 1], [2, 8]]})
    report.write(run)
    done = browse(f"{address}/run/report.html", tmp_path / "profile", "--dump-dom")
    assert requested == ["/run/report.html"]
    assert "CONSOLE" not in done.stderr
    assert "&lt;script src=/stolen" in done.stdout


def test_requests_and_errors_of_a_page_are_observable(served, tmp_path):
    """The test above relies on it."""
    address, requested = served
    (tmp_path / "bad.html").write_text("<img src='/missing.png'><script>console.error('oops')</script>")
    done = browse(f"{address}/bad.html", tmp_path / "profile", "--dump-dom")
    assert "/missing.png" in requested
    assert "CONSOLE" in done.stderr


def test_pages_are_dark_in_the_dark_theme_and_light_in_the_light_theme(make_run, tmp_path):
    import numpy as np
    from PIL import Image

    run = make_run()
    report.write(run)
    for theme, ground, flags in (("light", 255, ()), ("dark", 18, ("--blink-settings=preferredColorScheme=0",))):
        picture = tmp_path / f"{theme}.png"
        browse((run / "report.html").as_uri(), tmp_path / theme, f"--screenshot={picture}", *flags)
        pixels = np.asarray(Image.open(picture).convert("L"))
        # Charts have a white background, which has to become the background of the page.
        assert abs(int(np.median(pixels)) - ground) <= 1
        assert np.mean(np.abs(pixels.astype(int) - ground) <= 2) > 0.7
