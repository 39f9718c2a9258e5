import itertools

import pytest

from sparse_detr.data.sampler import ResumableTrainingSampler, TrainingBatchSampler


def take(iterable, count):
    return list(itertools.islice(iterable, count))


def test_every_epoch_holds_every_image_once_in_another_order() -> None:
    keys = take(ResumableTrainingSampler(10, seed=1, rank=0, world_size=1), 30)
    assert [position for position, _ in keys] == list(range(30))
    epochs = [[index for _, index in keys[i : i + 10]] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_another_seed_gives_another_order_and_the_same_seed_the_same() -> None:
    streams = [
        take(ResumableTrainingSampler(50, seed=s, rank=0, world_size=1), 50) for s in (3, 3, 4)
    ]
    assert streams[0] == streams[1] != streams[2]


def test_without_shuffle_the_data_sets_order_is_kept() -> None:
    keys = take(ResumableTrainingSampler(3, seed=0, shuffle=False, rank=0, world_size=1), 5)
    assert [index for _, index in keys] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_stream_of_one_process(world_size: int) -> None:
    whole = take(ResumableTrainingSampler(7, seed=5, rank=0, world_size=1), 6 * world_size)
    parts = [
        take(ResumableTrainingSampler(7, 5, rank=r, world_size=world_size), 6)
        for r in range(world_size)
    ]
    assert sorted(itertools.chain(*parts)) == whole


@pytest.mark.parametrize("start", [0, 1, 9, 10, 11, 37, 1_000_000])
def test_a_stream_can_start_anywhere(start: int) -> None:
    sampler = ResumableTrainingSampler(10, seed=2, rank=0, world_size=1)
    if start < 100:
        expected = take(sampler, start + 15)[start:]
    else:
        order = sampler.epoch_order(start // 10) + sampler.epoch_order(start // 10 + 1)
        expected = list(zip(range(start, start + 15), order))
    sampler.set_start(start)
    assert take(sampler, 15) == expected


@pytest.mark.parametrize("wide", [None, [i % 3 == 0 for i in range(11)]])
@pytest.mark.parametrize("start", [0, 1, 5, 8])
def test_batches_can_start_anywhere(wide: list[bool] | None, start: int) -> None:
    def batches() -> TrainingBatchSampler:
        stream = ResumableTrainingSampler(11, seed=2, rank=1, world_size=2)
        return TrainingBatchSampler(stream, 3, wide)

    expected = take(batches(), start + 6)[start:]
    resumed = batches()
    resumed.set_start_batch(start)
    assert take(resumed, 6) == expected


def test_grouped_batches_hold_one_orientation_and_lose_no_image() -> None:
    wide = [i % 4 == 0 for i in range(20)]
    stream = ResumableTrainingSampler(20, seed=0, rank=0, world_size=1)
    batches = take(TrainingBatchSampler(stream, 4, wide), 50)
    for batch in batches:
        assert len(batch) == 4 and len({wide[index] for _, index in batch}) == 1
    positions = sorted(position for batch in batches for position, _ in batch)
    assert len(set(positions)) == 200
    assert positions[-1] - 200 < 2 * 4  # at most what waits in the two groups


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="data set is empty"):
        ResumableTrainingSampler(0, seed=0)
    with pytest.raises(ValueError, match="seed"):
        ResumableTrainingSampler(3, seed=-1)
    with pytest.raises(ValueError, match="rank"):
        ResumableTrainingSampler(3, seed=0, rank=2, world_size=2)
    stream = ResumableTrainingSampler(3, seed=0, rank=0, world_size=2)
    with pytest.raises(ValueError, match="position"):
        stream.set_start(3)
    with pytest.raises(ValueError, match="batch_size"):
        TrainingBatchSampler(stream, 0)
    with pytest.raises(ValueError, match="batch"):
        TrainingBatchSampler(stream, 1).set_start_batch(-1)
