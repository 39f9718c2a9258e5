"""COCO 2017 with the released augmentation, read from the folder DETECTRON2_DATASETS names."""

from detectron2.config import LazyCall as L
from detectron2.evaluation import COCOEvaluator
from omegaconf import OmegaConf

from sparse_detr.data.augmentation import RandomHorizontalFlip, RandomSizeCrop, ResizeShorterSide
from sparse_detr.data.datasets import load_dataset
from sparse_detr.data.loader import build_test_loader, build_train_loader
from sparse_detr.data.mapper import DetrDatasetMapper
from sparse_detr.evaluation import SparsityEvaluator

dataloader = OmegaConf.create()

# Lengths in pixels.
dataloader.augmentation = {
    "flip_probability": 0.5,
    "short_edge_lengths": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
    "max_size": 1333,
    "crop_probability": 0.5,
    "crop_short_edge_lengths": [400, 500, 600],
    "crop_size": [384, 600],
    "test_short_edge_length": 800,
}

flip = L(RandomHorizontalFlip)(probability="${dataloader.augmentation.flip_probability}")
resize = L(ResizeShorterSide)(
    short_edge_lengths="${dataloader.augmentation.short_edge_lengths}",
    max_size="${dataloader.augmentation.max_size}",
)

dataloader.train = L(build_train_loader)(
    dataset=L(load_dataset)(names="coco_2017_train", filter_empty=False),
    mapper=L(DetrDatasetMapper)(
        is_train=True,
        augmentations=[flip, resize],
        augmentation_with_crop=[
            flip,
            L(ResizeShorterSide)(
                short_edge_lengths="${dataloader.augmentation.crop_short_edge_lengths}",
                max_size=None,
            ),
            L(RandomSizeCrop)(crop_size="${dataloader.augmentation.crop_size}"),
            resize,
        ],
        crop_probability="${dataloader.augmentation.crop_probability}",
        image_format="RGB",
        num_classes="${model.num_classes}",
    ),
    total_batch_size=16,
    num_workers=4,
    seed="${train.seed}",
    aspect_ratio_grouping=False,
    on_bad_sample="raise",
)

dataloader.test = L(build_test_loader)(
    dataset=L(load_dataset)(names="coco_2017_val", filter_empty=False),
    mapper=L(DetrDatasetMapper)(
        is_train=False,
        augmentations=[
            L(ResizeShorterSide)(
                short_edge_lengths="${dataloader.augmentation.test_short_edge_length}",
                max_size="${dataloader.augmentation.max_size}",
            ),
        ],
        image_format="${dataloader.train.mapper.image_format}",
    ),
    batch_size=2,
    num_workers=4,
)

dataloader.evaluator = L(COCOEvaluator)(
    dataset_name="${..test.dataset.names}",
    tasks=["bbox"],
    output_dir="${train.output_dir}/inference",
    max_dets_per_image=100,
    # Detectron2's faster implementation needs its C++ extension and is unofficial.
    use_fast_impl=False,
)

# What token selection did, in the same pass. null leaves it out.
dataloader.sparsity_evaluator = L(SparsityEvaluator)(
    dataset_name="${..test.dataset.names}",
    output_dir="${train.output_dir}/inference",
    # Keep the kept tokens of every image, for tools/compare_selections.py.
    store_selections=False,
)

del flip, resize
