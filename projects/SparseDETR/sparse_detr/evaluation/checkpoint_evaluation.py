"""One checkpoint and the data to evaluate it on, for programs that evaluate it several times.

Role in the flow: what ``train_net.py --eval-only`` does once, for the sweep over keeping ratios and
the comparison of two checkpoints; files of the checkpoint's own run stay as they are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from omegaconf import DictConfig

from ..engine.errors import user_errors
from ..engine.evaluation import Results, evaluate_model
from ..engine.run_data import (
    build_evaluators,
    build_test_data,
    dataset_name,
    first_images,
    load_run_data,
)
from ..inference import build_model_for_inference
from ..inference.optimization import Precision
from .sparsity_evaluator import SparsityEvaluator


class CheckpointEvaluation:
    """A detector with its weights, and the images to evaluate it on.

    Args:
        config: The config tree with overrides applied; changed here.
        weights: Checkpoint file.
        output_dir: Folder for whatever the evaluators write.
        num_images: Evaluate the first so many images; None for all.
        optimize: Precision of :func:`sparse_detr.inference.optimize_for_inference`, or None.
        with_precision: Also run the config's evaluator, which gives AP.

    Attributes:
        config: The config tree.
        model: The detector.
        sparsity: The evaluator of token selection; its ``images`` are those of the last run.

    Raises:
        UserError: Data, config or weights cannot be used.
    """

    def __init__(
        self,
        config: DictConfig,
        weights: str | os.PathLike[str],
        output_dir: Path,
        num_images: int | None = None,
        optimize: Precision | None = None,
        with_precision: bool = True,
    ) -> None:
        self.config = config
        data = load_run_data(config, with_training=False)
        if num_images is not None:
            data = first_images(config, data, num_images)
        self.num_images = len(data.test)
        self.dataset_name = dataset_name(config.dataloader.test, "dataloader.test")
        self.model = build_model_for_inference(
            config, weights, str(config.train.device), optimize=optimize
        )
        with user_errors(str(output_dir), OSError):
            output_dir.mkdir(parents=True, exist_ok=True)
        self._test_data = data.test
        self._loader = build_test_data(config, data)
        # Own ones: the config's would write into the folder of its run.
        config.dataloader.sparsity_evaluator = None
        if with_precision:
            config.dataloader.evaluator.output_dir = str(output_dir)
        else:
            config.dataloader.evaluator = None
        self._evaluators = build_evaluators(config, data, output_dir)
        name = data.subset_name if data.subset_of else self.dataset_name
        self.sparsity = SparsityEvaluator(name, output_dir=output_dir)

    def run(self, keep_ratio: Any = None, store_selections: bool = False) -> Results:
        """Gives the results of all evaluators.

        Args:
            keep_ratio: Keeping ratio of this evaluation; None takes the model's own.
            store_selections: Also write the kept tokens.
        """
        self.sparsity.store_selections = store_selections
        before = self.model.keep_ratio
        try:
            if keep_ratio is not None:
                self.model.keep_ratio = keep_ratio
            return evaluate_model(self.model, self._loader, [*self._evaluators, self.sparsity])
        finally:
            self.model.keep_ratio = before

    def samples(self, count: int) -> list[dict[str, Any]]:
        """Gives ``count`` images, evenly spread over the data, as the model takes them."""
        mapper = instantiate(self.config.dataloader.test.mapper)
        total = len(self._test_data)
        count = min(count, total)
        return [mapper(self._test_data[i * total // count]) for i in range(count)]
