"""Galleries: images of known identities, with search, verification, identification and duplicates.

A gallery is in PostgreSQL, in Milvus, or in a folder, which can be copied while no process writes to it:

    items.sqlite            items and properties, an SQLite database
    embeddings-N.f32        embeddings, rows of little-endian float32 numbers; N is the generation
    encoder/                the encoder that made the embeddings, as `simjax.load_encoder` loads it

SQLite rather than a text format, because it has transactions, indexes, and a lock that the operating system releases
when the process that holds it dies; programs in any language read it. Its tables are

    items                   id, identity (or NULL), path (or NULL), metadata (a JSON object), row of the embeddings
    properties              name and value: format, version, encoder, fingerprint, embedding_size, measure, generation,
                            rows (committed ones), transaction (their number), last_rewrite (the last transaction that
                            did more than adding items), calibrated (the transaction that stored the calibration),
                            calibration (a JSON object, if there is one)
    calibration             name and array (in NumPy's .npy format) of the calibration
    calibration_identities  names of the identities of the calibration

Rows beyond the committed ones are left from a transaction that was interrupted. Rows without an item are of removed
items. When most rows are, the others are copied to a file of the next generation. docs/gallery-format.md reads a
gallery without simjax.
"""

from simjax.gallery._gallery import Gallery
from simjax.gallery._results import Duplicate, Hit, Identification, Index, Item, SearchResult, Verification
from simjax.gallery._search import duplicates_of
from simjax.gallery._thresholds import duplicates_threshold

__all__ = [
    "Duplicate",
    "Gallery",
    "Hit",
    "Identification",
    "Index",
    "Item",
    "SearchResult",
    "Verification",
    "duplicates_of",
    "duplicates_threshold",
]
