"""The model card of an encoder in Markdown: facts, data, training settings, results, use and limits."""

from typing import Any

from simjax.encoder._config import EncoderConfig
from simjax.evaluate import Calibration


def model_card(config: EncoderConfig, calibration: Calibration | None) -> str:
    """Return the text of the README.md of an encoder.

    `config.about` may have a "title", dictionaries for the sections "data", "recipe" (the training settings) and
    "results", and a list of sentences, "limits". Two sentences about limits are added, which hold for every encoder.
    A result may be a dictionary of a "value" and its 95% "interval".
    """
    about, preprocessing = config.about, config.preprocessing
    height, width, channels = preprocessing.image_shape
    network = f"{config.networks} networks ({config.network})" if config.networks > 1 else config.network
    classes = f"{len(config.class_names)} classes: {', '.join(config.class_names)}"
    facts = {
        "Network": network,
        "Input": f"images of any size and color mode, converted to {height}x{width} pixels, "
        + ("grey" if channels == 1 else "color"),
        # Both ways to combine the embeddings of several networks concatenate them.
        "Embedding": f"{config.embedding_size * max(config.networks, 1)} numbers",
        "Measure": config.measure,
        "Classifier": "none" if config.head is None else classes,
        "Calibration": "none" if calibration is None else f"{len(calibration.embeddings):,} images",
    }
    parts = [f"# {about.get('title', 'Encoder')}", "", *_table(facts)]
    for section in ("data", "recipe", "results"):
        if about.get(section):
            parts += ["", f"## {section.capitalize()}", "", *_table(about[section])]
    parts += ["", "## Use", "", "```python", "import simjax", "", 'encoder = simjax.load_encoder("THIS_FOLDER")']
    parts += ['embeddings = encoder.encode(["a.png", "b.png"])', "```"]
    limits = [
        *about.get("limits", ()),
        "Images unlike the training images have embeddings that mean little.",
        "A threshold or a probability is valid for images like those of the calibration only.",
    ]
    return "\n".join([*parts, "", "## Limits", "", *(f"- {sentence}" for sentence in limits), ""])


def fact_text(value: Any) -> str:
    """Return a fact about an encoder as text, with the interval of a result."""
    if isinstance(value, dict):
        text, interval = fact_text(value.get("value")), value.get("interval")
        return text if interval is None else f"{text} (95% interval {' to '.join(map(fact_text, interval))})"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(fact_text, value))
    return str(value)


def _table(facts: dict[str, Any]) -> list[str]:
    rows = [f"| {name} | {_cell(value)} |" for name, value in facts.items()]
    return ["| | |", "|---|---|", *rows]


def _cell(value: Any) -> str:
    return fact_text(value).replace("|", "\\|").replace("\n", " ")
