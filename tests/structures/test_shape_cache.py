"""Constants that are kept per shape."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sparse_detr.structures import ShapeCache, is_plain


def counting(values):
    """A maker of values that notes for which keys it was called."""
    calls = []

    def make(key):
        calls.append(key)
        return values[key]

    return make, calls


def test_a_value_is_made_once_as_long_as_it_is_kept():
    cache, (make, calls) = ShapeCache(2), counting({"a": 1, "b": 2, "c": 3})
    for key in "abab":
        assert cache.get(key, lambda key=key: make(key)) == {"a": 1, "b": 2}[key]
    assert calls == ["a", "b"]


def test_the_entry_unused_for_longest_goes_first():
    cache, (make, calls) = ShapeCache(2), counting(dict.fromkeys("abc", 0))
    for key in "abacab":
        cache.get(key, lambda key=key: make(key))
        assert len(cache) <= 2
    assert calls == ["a", "b", "c", "b"]


def test_tensors_made_in_inference_mode_are_ordinary_ones():
    cache = ShapeCache()
    with torch.inference_mode():
        constant = cache.get("key", lambda: torch.ones(3))
        assert not torch.ones(3).requires_grad and torch.ones(3).is_inference()
    weight = torch.ones(3, requires_grad=True)
    (cache.get("key", lambda: None) * weight).sum().backward()
    assert not constant.is_inference() and weight.grad.tolist() == [1, 1, 1]


def test_constants_have_no_gradient_even_if_they_are_made_while_training():
    weight = torch.ones(3, requires_grad=True)
    assert not ShapeCache().get("key", lambda: weight * 2).requires_grad


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_starts_empty_with_the_same_size(copied):
    cache = ShapeCache(3)
    cache.get("key", lambda: torch.ones(1))
    assert len(copied(cache)) == 0 and copied(cache).max_entries == 3


def test_threads_share_it():
    cache = ShapeCache(4)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda i: cache.get(i % 7, lambda: i % 7), range(2000)))
    assert got == [i % 7 for i in range(2000)] and len(cache) == 4


def test_stand_ins_of_a_tracer_are_told_from_real_tensors():
    seen = []

    def look(tensor):
        seen.append(is_plain(tensor))
        return tensor + 1

    torch.compile(look, backend="eager")(torch.ones(2))
    with torch._subclasses.FakeTensorMode():
        assert not is_plain(torch.ones(2))
    assert seen == [False] and is_plain(torch.ones(2))


def test_a_cache_of_nothing_is_refused():
    with pytest.raises(ValueError, match="max_entries must be at least 1, got 0"):
        ShapeCache(0)
