"""The memory equals a list of the last rows; losses with a memory equal those of pytorch-metric-learning."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from simjax import losses, pairs
from simjax.core import InputError
from simjax.mining import against, cross_batch_memory, multi_similarity, push
from tests.slow import mostly_slow

SIZE, BATCH, WIDTH = 13, 5, 4  # after 3 batches it is full, and the third wraps around
LOSSES = {
    "contrastive": losses.contrastive_loss,
    "multi_similarity": losses.multi_similarity_loss,
    "triplet_margin": losses.triplet_margin_loss,
}


def batches(random, n, batch=BATCH):
    return [(random.normal(size=(batch, WIDTH)).astype(np.float32), random.integers(0, 3, batch)) for _ in range(n)]


def as_lists(memory):
    """Return the labels and rows of the memory, in the order of the buffer."""
    return [
        (int(label), row.tolist())
        for label, row in zip(*map(np.asarray, (memory.labels, memory.embeddings)), strict=True)
    ]


@pytest.mark.parametrize("batch", [1, 5, 13])
def test_the_memory_stores_the_last_rows(random, batch):
    memory, seen = cross_batch_memory(SIZE, WIDTH), []
    for x, labels in batches(random, 6, batch):
        memory = push(memory, x, labels)
        seen += [(int(label), row.tolist()) for label, row in zip(labels, x, strict=True)]
        filled, place = int(memory.filled), int(memory.place)
        assert filled == min(len(seen), SIZE)
        assert place == len(seen) % SIZE
        ring = as_lists(memory)
        in_order = ring[place:] + ring[:place] if filled == SIZE else ring[:filled]
        assert in_order == seen[-SIZE:]
        assert not np.asarray(memory.embeddings)[filled:].any()


@jax.jit
def relations_with(memory, labels):
    """Return the masks of relations of a batch with the memory, with and without the copies of its own rows."""
    i, j = jnp.arange(BATCH)[:, None], jnp.arange(SIZE)[None]
    relations = {
        "class ids": labels,
        "ignored": pairs.by_class(labels, memory.labels, ignore=(1,)),
        "function": pairs.by_function(lambda a, b: a + b == 2, labels, memory.labels),
    }
    return {
        (name, own): against(memory, relation, own=own).masks(i, j)
        for name, relation in relations.items()
        for own in (False, True)
    }


def test_relations_with_the_memory(random):
    memory, written = cross_batch_memory(SIZE, WIDTH), np.full(SIZE, -1)  # the number of the row at each index
    for number, (x, labels) in enumerate(batches(random, 6)):
        memory = push(memory, x, labels)
        rows = number * BATCH + np.arange(BATCH)
        written[rows % SIZE] = rows
        ref_labels = np.asarray(memory.labels)
        same, known = labels[:, None] == ref_labels, (labels != 1)[:, None] & (ref_labels != 1)
        two = labels[:, None] + ref_labels == 2
        expected = {"class ids": (same, ~same), "ignored": (same & known, ~same & known), "function": (two, ~two)}
        for (name, own), masks in relations_with(memory, labels).items():
            valid = (written >= 0) & (own | (written != rows[:, None]))
            for mask, wanted in zip(masks, expected[name], strict=True):
                np.testing.assert_array_equal(mask, wanted & valid)


@pytest.mark.parametrize("name", mostly_slow(LOSSES))
def test_a_loss_compares_with_filled_places_only(random, name):
    """Value and gradient are those of the filled places as constants, with the pairs as matrices."""

    @jax.jit
    def ours(x, memory, labels):
        def loss(x):
            pushed = push(memory, x, labels)
            return LOSSES[name](x, against(pushed, labels), ref_embeddings=pushed.embeddings, block_size=2), pushed

        gradient_of_memory = jax.grad(lambda x: push(memory, x, labels).embeddings.sum())(x)
        return *jax.value_and_grad(loss, has_aux=True)(x), gradient_of_memory

    @jax.jit
    def expected(x, y, positive, negative):
        relation = pairs.by_matrix(positive, negative)
        return jax.value_and_grad(lambda x: LOSSES[name](x, relation, ref_embeddings=y))(x)

    memory = cross_batch_memory(SIZE, WIDTH)
    for number, (x, labels) in enumerate(batches(random, 4)):
        (value, memory), gradient, gradient_of_memory = ours(x, memory, labels)
        assert not np.any(gradient_of_memory)
        places = (number * BATCH + np.arange(BATCH)) % SIZE
        mine = np.arange(SIZE) == places[:, None]
        same = labels[:, None] == np.asarray(memory.labels)
        if number in (0, 3):  # partly filled and full
            keep = np.arange(SIZE) < min(SIZE, (number + 1) * BATCH)
            y = np.asarray(memory.embeddings)[keep]
            wanted, slope = expected(x, y, (same & ~mine)[:, keep], (~same & ~mine)[:, keep])
            np.testing.assert_allclose(value, wanted, rtol=1e-5)
            np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("contrastive", "ContrastiveLoss"),
        ("multi_similarity", "MultiSimilarityLoss"),
        ("triplet_margin", "TripletMarginLoss"),
    ],
)
def test_losses_equal_pytorch_metric_learning(random, name, theirs):
    reason = "pytorch-metric-learning is not installed"
    peer = pytest.importorskip("pytorch_metric_learning.losses", reason=reason)
    torch = pytest.importorskip("torch")
    loss = peer.CrossBatchMemory(getattr(peer, theirs)(), embedding_size=WIDTH, memory_size=SIZE)
    memory = cross_batch_memory(SIZE, WIDTH)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def ours(x, memory, labels):
        memory = push(memory, x, labels)
        return LOSSES[name](x, against(memory, labels), ref_embeddings=memory.embeddings), memory

    for x, labels in batches(random, 7):
        (value, memory), gradient = ours(x, memory, labels)
        leaf = torch.tensor(x, requires_grad=True)
        expected = loss(leaf, torch.tensor(labels))
        expected.backward()
        assert leaf.grad is not None
        slope = leaf.grad.numpy()
        np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
        np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-4 * np.abs(slope).max())
        np.testing.assert_allclose(memory.embeddings, loss.embedding_memory.numpy(), rtol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_miner_selects_from_the_memory(random):
    """Equal to pytorch-metric-learning if every row has another positive: its miner also selects a row's own copy."""
    reason = "pytorch-metric-learning is not installed"
    peer = pytest.importorskip("pytorch_metric_learning.losses", reason=reason)
    miner = pytest.importorskip("pytorch_metric_learning.miners", reason=reason).MultiSimilarityMiner()
    torch = pytest.importorskip("torch")
    loss = peer.CrossBatchMemory(peer.ContrastiveLoss(), embedding_size=WIDTH, memory_size=SIZE, miner=miner)
    memory, labels = cross_batch_memory(SIZE, WIDTH), np.array([0, 1, 0, 1, 1])

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def ours(x, memory):
        memory = push(memory, x, labels)
        mined = multi_similarity(x, against(memory, labels), ref_embeddings=memory.embeddings)
        return losses.contrastive_loss(x, mined, ref_embeddings=memory.embeddings), memory

    for x, _ in batches(random, 4):
        (value, memory), gradient = ours(x, memory)
        leaf = torch.tensor(x, requires_grad=True)
        expected = loss(leaf, torch.tensor(labels))
        expected.backward()
        assert leaf.grad is not None
        np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-3, atol=1e-5)


def test_keys_of_a_second_encoder_are_a_queue(random):
    """The other view of row i is its only positive; all other keys are negatives."""
    (earlier, _), (query, _), (key, _) = batches(random, 3)

    @jax.jit
    def loss(earlier, query, key, ids):
        memory = push(push(cross_batch_memory(SIZE, WIDTH), earlier, ids - BATCH), key, ids)
        relation = against(memory, ids, own=True)
        return losses.nt_xent_loss(query, relation, ref_embeddings=memory.embeddings, temperature=0.5)

    keys = np.concatenate([earlier, key])
    z = query @ keys.T / np.linalg.norm(query, axis=1)[:, None] / np.linalg.norm(keys, axis=1) / 0.5
    expected = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(BATCH), BATCH + np.arange(BATCH)])
    np.testing.assert_allclose(loss(earlier, query, key, BATCH + np.arange(BATCH)), expected, rtol=1e-5)


@pytest.mark.parametrize("name", mostly_slow(LOSSES, "contrastive"))
def test_an_empty_memory_has_zero_gradients(name):
    memory, x = cross_batch_memory(SIZE, WIDTH), np.ones((BATCH, WIDTH), np.float32)

    @jax.jit
    def both(x):
        options = {"ref_embeddings": memory.embeddings}
        relation = against(memory, jnp.arange(BATCH))
        terms = losses.unreduced(LOSSES[name])(x, relation, **options)
        return *jax.value_and_grad(lambda x: LOSSES[name](x, relation, **options))(x), terms.count.sum()

    value, gradient, count = both(x)
    assert not np.any(gradient)
    assert np.isfinite(value)
    assert float(value) == 0 or int(count) == BATCH  # a row without pairs is a term of some losses


def step(state, x, labels):
    """Return the next training state, which includes the memory, and the loss."""

    def loss_of(weights, memory):
        embeddings = x @ weights
        memory = push(memory, embeddings, labels)
        late = losses.contrastive_loss(embeddings, against(memory, labels), ref_embeddings=memory.embeddings)
        return jnp.where(state["step"] >= 2, late, losses.contrastive_loss(embeddings, labels)), memory

    (value, memory), gradient = jax.value_and_grad(loss_of, has_aux=True)(state["weights"], state["memory"])
    return {"weights": state["weights"] - 0.1 * gradient, "memory": memory, "step": state["step"] + 1}, value


def first_state():
    return {"weights": jnp.eye(WIDTH), "memory": cross_batch_memory(SIZE, WIDTH), "step": jnp.zeros((), jnp.int32)}


@pytest.mark.slow
def test_all_fill_levels_share_one_compiled_step_that_updates_in_place(random, caplog):
    take = jax.jit(step, donate_argnums=0)
    state = first_state()
    values = []
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        for x, labels in batches(random, 6):
            before = state
            state, value = take(state, x, labels)
            values.append(float(value))
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before["memory"]))
    compiled = [r.getMessage() for r in caplog.records if "Finished XLA compilation of jit(step)" in r.getMessage()]
    assert len(compiled) == 1
    state, again = first_state(), []
    step_again = jax.jit(step)
    for x, labels in batches(np.random.default_rng(0), 6):
        state, value = step_again(state, x, labels)
        again.append(float(value))
    np.testing.assert_allclose(values, again, rtol=1e-5)
    assert again[2] != again[1]


@pytest.mark.usefixtures("unchecked")  # Orbax restores into the same structure with leaves that are not arrays
def test_a_restored_memory_continues_bit_for_bit(random, tmp_path):
    data, state = batches(random, 7), cross_batch_memory(SIZE, WIDTH)
    for number, (x, labels) in enumerate(data):
        if number == 4:  # full, in the middle of the ring
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(tmp_path.resolve() / "state", state)
        state = push(state, x, labels)
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.restore(tmp_path.resolve() / "state", cross_batch_memory(SIZE, WIDTH))
    for x, labels in data[4:]:
        saved = push(saved, x, labels)
    assert jax.tree.structure(saved) == jax.tree.structure(state)
    for found, wanted in zip(jax.tree.leaves(saved), jax.tree.leaves(state), strict=True):
        assert found.dtype == wanted.dtype
        assert found.tobytes() == wanted.tobytes()


def test_half_precision(random):
    x, labels = batches(random, 1)[0]
    memory = push(cross_batch_memory(SIZE, WIDTH, jnp.bfloat16), x, labels)
    assert memory.embeddings.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(memory.embeddings)[:BATCH], x.astype(jnp.bfloat16))

    @jax.jit
    def both(x, memory, labels):
        found = losses.contrastive_loss(x, against(memory, labels), ref_embeddings=memory.embeddings)
        return found, losses.contrastive_loss(x, labels)

    np.testing.assert_allclose(*both(x, memory, labels), rtol=0.02)


@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments_raise_errors():
    memory, labels = cross_batch_memory(3, 2), np.arange(2)
    for rows in (np.zeros((4, 2)), np.zeros((2, 5)), np.zeros(2)):
        with pytest.raises(InputError, match="embeddings: expected at most 3 rows of 2 features"):
            push(memory, rows, labels)
    with pytest.raises(InputError, match="labels: expected one for each of 3 rows"):
        push(memory, np.zeros((3, 2)), labels)
    with pytest.raises(TypeError, match="labels: expected integer class ids"):
        push(memory, np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(TypeError, match="labels: expected integer class ids"):
        against(memory, np.zeros(2))
    with pytest.raises(InputError, match="labels: expected at most 3 rows, the size of the memory, got 4"):
        against(memory, np.arange(4))
    with pytest.raises(InputError, match=r"expected a relation of \(2, 3\) rows and columns, got \(2, 2\)"):
        against(memory, pairs.by_class(labels))
    for wrong in ((0, 2), (2, 0)):
        with pytest.raises(InputError, match="expected at least 1, got 0"):
            cross_batch_memory(*wrong)
    with pytest.raises(TypeError, match="dtype: expected a floating-point type, got int32"):
        cross_batch_memory(3, 2, jnp.int32)
