"""The former signature of `pair_loss`, until the last loss uses `compute_pair_loss`."""

from typing import Any

from simjax.losses._options import resolve_options
from simjax.losses._pair_loss import compute_pair_loss
from simjax.losses._pair_loss import pair_loss as _new


def pair_loss(
    form: Any,
    embeddings: Any,
    labels: Any,
    *,
    default_reducer: str = "mean",
    row_parameters: Any = None,
    triplets: bool = False,
    by_column: bool = False,
    by_class: bool = False,
    symmetric: bool = False,
    chunk_size: int = 1,
    **rest: Any,
) -> Any:
    names = ("ref_embeddings", "ref_labels", "measure", "weights", "reducer", "block_size")
    options = resolve_options(_new, {k: v for k, v in rest.items() if k in names}, reducer=default_reducer)
    parameters = {k: v for k, v in rest.items() if k not in names}
    return compute_pair_loss(
        form,
        embeddings,
        labels,
        options,
        row_parameters=row_parameters,
        column_parameters={"columns": parameters.pop("columns")} if "columns" in parameters else None,
        triplets=triplets,
        chunk_size=chunk_size,
        **parameters,
    )
