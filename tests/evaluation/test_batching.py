import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from search.reuse.batching import (
    Budget,
    Scored,
    TokenRow,
    collate,
    merge_equal,
    merge_prefixes,
    pack,
)

token_rows = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=30
).map(
    lambda rows: [TokenRow(ids, (Scored(len(ids) - 1, 7, slot),)) for slot, ids in enumerate(rows)]
)


@given(token_rows)
def test_every_slot_stays_at_its_tokens(rows):
    """Whatever is merged, a slot is scored behind the same tokens as before."""
    for merge in (merge_equal, merge_prefixes):
        seen = {
            item.slot: row.ids[: item.position + 1] for row in merge(rows) for item in row.scored
        }
        assert seen == {row.scored[0].slot: row.ids for row in rows}


@given(token_rows)
def test_no_row_that_begins_another_is_left(rows):
    ids = [row.ids for row in merge_prefixes(rows)]
    for a in range(len(ids)):
        for b in range(len(ids)):
            assert a == b or ids[b][: len(ids[a])] != ids[a]


@given(token_rows, st.builds(Budget, *[st.integers(0, 12)] * 3), st.integers(0, 99))
def test_batches_keep_the_budget_and_do_not_depend_on_order(rows, budget, seed):
    merged = merge_prefixes(rows)
    batches = pack(merged, budget)
    assert sorted(row for batch in batches for row in map(hash, batch)) == sorted(map(hash, merged))
    for batch in batches:
        if len(batch) > 1:
            padded = len(batch) * max(len(row.ids) for row in batch)
            assert padded <= budget.tokens
            assert padded - sum(len(row.ids) for row in batch) <= budget.padding
            assert sum(len(row.scored) for row in batch) <= budget.scored
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert pack(merge_prefixes(shuffled), budget) == batches


def test_collate_pads_on_the_right():
    rows = [
        TokenRow((5, 6, 7), (Scored(1, 8, 0), Scored(2, 9, 3)), (0, 0, 1)),
        TokenRow((4,), (Scored(0, 2, 1),), (0,)),
    ]
    batch = collate(rows, pad_id=3, device=torch.device("cpu"))
    assert batch.input_ids.tolist() == [[5, 6, 7], [4, 3, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.token_type_ids.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert batch.rows.tolist() == [0, 0, 1]
    assert batch.positions.tolist() == [1, 2, 0]
    assert batch.targets.tolist() == [8, 9, 2]
    assert batch.slots.tolist() == [0, 3, 1]
