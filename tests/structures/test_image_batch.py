"""Normalising images and grouping them for the backbone."""

import numpy as np
import pytest
import torch

from sparse_detr.preprocess import normalised_batch
from sparse_detr.structures import ImageBatch

MEAN = torch.tensor([100.0, 110.0, 120.0]).view(3, 1, 1)
STD = torch.tensor([50.0, 60.0, 70.0]).view(3, 1, 1)


def image_batch(sizes):
    images = tuple(torch.full((3, *size), float(i + 1)) for i, size in enumerate(sizes))
    return ImageBatch(images, tuple(sizes), tuple(range(len(sizes))))


def test_colours_are_shifted_and_scaled_per_channel():
    image = torch.tensor([150, 110, 50], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)
    (got,) = normalised_batch([{"image": image}], MEAN, STD).images
    assert got[:, 0, 0].tolist() == [1.0, 0.0, -1.0]


def test_sizes_and_ids_come_from_the_dict_or_from_the_image():
    images = normalised_batch(
        [
            {"image": torch.zeros(3, 4, 5), "height": 40, "width": 50, "image_id": 7},
            {"image": torch.zeros(3, 4, 5), "file_name": "a.png"},
            {"image": torch.zeros(3, 4, 5)},
        ],
        MEAN,
        STD,
    )
    assert images.original_sizes == ((40, 50), (4, 5), (4, 5))
    assert images.image_sizes == ((4, 5),) * 3
    assert images.image_ids == (7, "a.png", 2)


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 4, 5), torch.zeros(4, 5), np.zeros((3, 4, 5), np.uint8)]
)
def test_an_image_of_another_shape_or_type_is_refused_by_its_position(image):
    good = {"image": torch.zeros(3, 4, 5)}
    with pytest.raises(ValueError, match=r"batched_inputs\[1\]\['image'\]"):
        normalised_batch([good, {"image": image}], MEAN, STD)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        normalised_batch([], MEAN, STD)


def test_together_all_images_are_padded_to_the_largest_of_each_axis():
    (group,) = image_batch([(4, 9), (7, 5)]).groups(together=True)
    assert group.pixels.shape == (2, 3, 7, 9)
    assert group.image_sizes == ((4, 9), (7, 5))
    assert (group.pixels[0, :, :4, :9] == 1).all()
    assert (group.pixels[0, :, 4:] == 0).all()
    assert (group.pixels[1, :, :, 5:] == 0).all()


def test_apart_only_images_of_equal_size_share_a_group_and_none_is_padded():
    groups = list(image_batch([(4, 9), (7, 5), (4, 9)]).groups(together=False))
    assert [g.positions for g in groups] == [(0, 2), (1,)]
    assert [tuple(g.pixels.shape) for g in groups] == [(2, 3, 4, 9), (1, 3, 7, 5)]


@pytest.mark.parametrize("together", [True, False])
def test_padded_sizes_are_rounded_up_where_the_backbone_asks(together):
    for group in image_batch([(4, 9), (8, 17)]).groups(together, size_divisibility=8):
        assert group.pixels.shape[-2] % 8 == 0 and group.pixels.shape[-1] % 8 == 0
        assert group.pixels.shape[-1] < 17 + 8
