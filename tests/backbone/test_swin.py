"""Freezing, drop path, output choice and argument checks of the Swin backbone."""

import copy

import pytest
import torch

from sparse_detr.backbone import SwinBackbone


def make_small(**overrides) -> SwinBackbone:
    torch.manual_seed(0)
    return SwinBackbone(**{"embed_dim": 32, "depths": (1, 1, 2, 1), **overrides})


def images(batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, 37, 50, generator=torch.Generator().manual_seed(0))


def outputs_differ(backbone: SwinBackbone) -> bool:
    torch.manual_seed(1)
    first, second = backbone(images(4)), backbone(images(4))
    return not all(torch.equal(first[key], second[key]) for key in first)


def test_drop_path_rises_linearly_over_the_blocks():
    backbone = SwinBackbone(drop_path_rate=0.2)
    rates = [block.stochastic_depth.p for stage in backbone.stages for block in stage.blocks]
    assert rates == pytest.approx([0.2 * index / 11 for index in range(12)])


def test_drop_path_is_random_in_train_mode_only():
    backbone = make_small(drop_path_rate=0.9)
    assert outputs_differ(backbone.train())
    assert not outputs_differ(backbone.eval())


def test_frozen_stages_are_deterministic_in_train_mode():
    backbone = make_small(drop_path_rate=0.9, freeze_at=5).train()
    assert not outputs_differ(backbone)


def test_released_behaviour_drops_paths_in_frozen_stages():
    backbone = make_small(drop_path_rate=0.9, freeze_at=5, drop_path_in_frozen_stages=True).train()
    assert outputs_differ(backbone)


def test_freezing_covers_patch_embedding_and_first_stage_with_its_downsampling():
    backbone = SwinBackbone().train()
    frozen = {key for key, value in backbone.named_parameters() if not value.requires_grad}
    expected = {
        key
        for key, _ in backbone.named_parameters()
        if key.startswith(("patch_embed.", "stages.0."))
    }
    assert frozen == expected
    assert any("downsample" in key for key in frozen)
    assert not backbone.patch_embed.training
    assert not backbone.stages[0].training
    assert backbone.stages[1].training


def test_a_copy_keeps_its_frozen_stage_in_eval_mode():
    duplicate = copy.deepcopy(SwinBackbone().eval()).train()
    assert not duplicate.stages[0].training
    assert duplicate.stages[1].training


def test_only_named_features_are_returned_and_later_stages_are_not_built():
    backbone = make_small(out_features=("stage2", "stage0")).eval()
    assert list(backbone(images())) == ["stage2", "stage0"]
    assert {key: shape.stride for key, shape in backbone.output_shape().items()} == {
        "stage2": 16,
        "stage0": 4,
    }
    assert len(backbone.stages) == 3
    assert backbone.stages[2].downsample is None


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"embed_dim": 33}, "embed_dim"),
        ({"depths": ()}, "depths"),
        ({"depths": (1, 0)}, "depths"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
        ({"out_features": ("res3",)}, "out_features"),
        ({"out_features": ()}, "out_features"),
        ({"freeze_at": 6}, "freeze_at"),
    ],
)
def test_wrong_arguments_are_named(overrides, named):
    with pytest.raises(ValueError, match=named):
        make_small(**overrides)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32)])
def test_wrong_input_shape_is_named(shape):
    with pytest.raises(ValueError, match="images"):
        make_small()(torch.zeros(shape))


@pytest.mark.parametrize("window", [4, 7])
def test_the_window_size_is_that_of_the_bias_tables_and_of_the_shift(window):
    backbone = make_small(window_size=window, depths=(2, 1, 1, 1))
    first, second = (block.attn for block in backbone.stages[0].blocks)
    assert len(first.relative_position_bias_table) == (2 * window - 1) ** 2
    assert list(first.shift_size) == [0, 0] and list(second.shift_size) == [window // 2] * 2
    assert all(map_.isfinite().all() for map_ in backbone(images()).values())


def test_a_window_of_one_token_is_refused():
    with pytest.raises(ValueError, match="window_size"):
        make_small(window_size=1)
