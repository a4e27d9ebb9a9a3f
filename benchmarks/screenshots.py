"""Take screenshots of the first screens of pages: `python -m benchmarks.screenshots NAME=FILE.html ...`.

Every page is taken at 1280 and at 400 pixels, light and dark: NAME.png, NAME_dark.png, NAME_narrow.png and
NAME_narrow_dark.png. Needs Chromium on the PATH and the package playwright (the extra `test`).
"""

import argparse
import io
import shutil
import sys
from pathlib import Path
from typing import Literal

HEIGHT = 900
SIZES = {"": 1280, "_narrow": 400}
THEMES: dict[str, Literal["light", "dark"]] = {"": "light", "_dark": "dark"}


def main() -> int:
    """Take the screenshots and write them with 256 colours."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("pages", nargs="+", metavar="NAME=FILE", help="name of the screenshots, and the page")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "pages", metavar="DIR")
    options = parser.parse_args()
    from PIL import Image
    from playwright.sync_api import sync_playwright

    options.out.mkdir(exist_ok=True)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for name, file in (page.split("=", 1) for page in options.pages):
            for size, width in SIZES.items():
                for theme, scheme in THEMES.items():
                    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
                    page.goto(Path(file).resolve().as_uri())
                    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                    few_colours = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=4)
                    few_colours.save(options.out / f"{name}{size}{theme}.png", optimize=True)
                    page.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
