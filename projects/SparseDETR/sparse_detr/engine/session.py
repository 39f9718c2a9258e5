"""One process of a run: checks everything, then trains or evaluates.

Role in the flow: :mod:`sparse_detr.engine.program` calls :func:`run_session` in each process. The
output folder is made only when config, data, model and initial weights are known to be good.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from detectron2.engine import hooks as detectron2_hooks
from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..config.loading import save_config
from ..token_selection import as_keep_ratio
from .backbone_weights import load_backbone_weights, warn_of_random_frozen_backbone
from .devices import resolve_device, seed_everything
from .ema import ModelEma
from .environment import describe_environment
from .errors import ResultsMissedError, UserError, user_errors
from .evaluation import (
    Results,
    check_expectation,
    evaluate_model,
    missed_expectations,
    save_results,
)
from .event_logs import RunLog, build_writers, trim_metrics
from .hooks import CheckpointHook, EmaHook, EvaluationHook, LearningRateHook, WriterHook
from .launching import wrap_for_processes
from .precision import MixedPrecision
from .resuming import Resumption, forget_earlier_run, read_resumption
from .run_data import (
    RunData,
    build_evaluators,
    build_test_data,
    build_train_data,
    load_run_data,
    log_skipped_samples,
)
from .run_state import RunCheckpoints, weights_to_use
from .schedule import EpochSchedule, IterationSchedule, plan_iterations
from .trainer import StepOptions, Trainer
from .weights import load_weights

logger = logging.getLogger(__name__)

FAST_DEV_ITERATIONS = 20


def run_session(config: DictConfig, arguments: argparse.Namespace) -> Results:
    """Trains or evaluates as the config and the command line say.

    Args:
        config: The config tree with overrides applied.
        arguments: Uses ``eval_only``, ``optimize``, ``compile``, ``resume`` and ``overrides``; the
            rest is logged.

    Returns:
        The metrics of the last evaluation; empty in all processes but the first.

    Raises:
        UserError: The input has to be corrected; nothing was written.
        ResultsMissedError: ``train.expected_results`` was missed.
        TrainingDivergedError: Something was not finite.
    """
    log = RunLog(comm.get_rank())
    try:
        session = Session(config, arguments, log)
        results = session.evaluate() if arguments.eval_only else session.train()
        if comm.is_main_process():
            missed = missed_expectations(results, config.train.expected_results)
            if missed:
                raise ResultsMissedError(
                    "results below what train.expected_results asks: " + "; ".join(missed)
                )
            if config.train.expected_results:
                logger.info("All of train.expected_results are met")
        return results
    except (Exception, KeyboardInterrupt) as error:
        log.record_end(error)
        raise
    finally:
        log.close()


class Session:
    """The checked parts of a run.

    Args:
        config: The config tree.
        arguments: The command line.
        log: The run's log, not attached to a folder yet.

    Raises:
        UserError: Something has to be corrected; nothing was written.
    """

    def __init__(self, config: DictConfig, arguments: argparse.Namespace, log: RunLog) -> None:
        self.config = config
        self.arguments = arguments
        self.log = log
        options = config.train
        with user_errors("train.expected_results", ValueError):
            for row in options.expected_results:
                check_expectation(list(row))
        keep_ratio = OmegaConf.select(config, "model.keep_ratio")
        if keep_ratio is not None:
            with user_errors("model.keep_ratio", ValueError):
                as_keep_ratio(keep_ratio)
        self.output_dir = Path(str(options.output_dir))
        self.local_rank = comm.get_local_rank()
        self.device = resolve_device(str(options.device), self.local_rank)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        seed_everything(int(options.seed), comm.get_rank(), bool(options.deterministic))
        self.checkpoints = _construct(
            RunCheckpoints, self.output_dir, int(options.checkpointer.max_to_keep)
        )
        self.precision = _construct(
            MixedPrecision, bool(options.amp.enabled), str(options.amp.dtype), self.device
        )
        # Last of what can be said without the data, which takes long to load.
        self._check_weight_files()
        self.data: RunData = load_run_data(config, with_training=not arguments.eval_only)
        with user_errors("model", ValueError, FileNotFoundError):
            self.model: nn.Module = instantiate(config.model)
        self.model.to(self.device)
        if config.dataloader.get("evaluator") is None:
            raise UserError("dataloader.evaluator is not set, so nothing can be evaluated")
        self.test_loader = build_test_data(config, self.data)

    def _check_weight_files(self) -> None:
        """Raises UserError where weights to start from, or to evaluate, are not there."""
        options = self.config.train
        files: dict[str, str] = {}
        if self.arguments.eval_only:
            files["init_checkpoint"] = self._evaluated_file()
            if not files["init_checkpoint"]:
                raise UserError(
                    "nothing to evaluate: train.init_checkpoint is not set and "
                    f"train.output_dir {self.output_dir} holds no checkpoint"
                )
        elif not self.arguments.resume:
            keys = ("init_checkpoint", "backbone_weights")
            files = {key: str(options[key] or "") for key in keys}
        for key, file in files.items():
            if file and not Path(file).is_file():
                raise UserError(f"train.{key}: {file} does not exist")

    def _evaluated_file(self) -> str:
        """Gives the file that ``--eval-only`` is about; empty where there is none."""
        return weights_to_use(self.config, self.arguments.overrides)

    def open_output(self) -> None:
        """Makes the output folder, opens ``log.txt``, saves the config.

        An evaluation may share the folder of a training, even while that runs: its files have
        names of their own.
        """
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"train.output_dir {self.output_dir} cannot be made: {error}"
            ) from error
        comm.synchronize()
        with user_errors(f"train.output_dir {self.output_dir}", OSError):
            self.log.attach(self.output_dir)
        logger.info("Command line: %s", vars(self.arguments))
        logger.info("%s", describe_environment(self.device))
        seed, switch = self.config.train.seed, self.config.train.deterministic
        logger.info("Seed %s + process number; deterministic %s", seed, switch)
        if comm.is_main_process():
            if not self.arguments.eval_only:
                self.checkpoints.remove_leftovers()
            name = "eval_config.yaml" if self.arguments.eval_only else "config.yaml"
            with user_errors(f"train.output_dir {self.output_dir}", OSError):
                save_config(self.config, self.output_dir / name)
            logger.info("Config with all overrides: %s", self.output_dir / name)
        parameters = list(self.model.parameters())
        total = sum(parameter.numel() for parameter in parameters)
        trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        logger.info(
            "Model %s: %.3fM parameters, %.3fM trainable",
            type(self.model).__name__,
            total / 1e6,
            trainable / 1e6,
        )

    def evaluate(self) -> Results:
        """Gives the metrics of the checkpoint that :func:`weights_to_use` names."""
        self._load_initial(self._evaluated_file(), use_average=True)
        if self.arguments.optimize:
            self.model = self._optimized()
        self.open_output()
        evaluators = build_evaluators(self.config, self.data, self.output_dir)
        results = evaluate_model(self.model, self.test_loader, evaluators)
        if comm.is_main_process():
            save_results(results, self.output_dir / "eval_results.json")
            logger.info("Results: %s", self.output_dir / "eval_results.json")
        return results

    def _optimized(self) -> nn.Module:
        """Gives a faster detector with the weights of this one."""
        # Only here: a training needs none of it.
        from ..inference.optimization import optimize_for_inference

        with user_errors("--optimize", TypeError, ValueError):
            return optimize_for_inference(
                self.model.eval(),  # type: ignore[arg-type]  # it says what it cannot take
                self.arguments.optimize,
                compile_backbone=bool(self.arguments.compile),
            )

    def _load_start(self) -> None:
        """Gives the model of a new training the weights that the config names."""
        options = self.config.train
        if options.backbone_weights:
            load_backbone_weights(self.model, str(options.backbone_weights))
        if options.init_checkpoint:
            self._load_initial(str(options.init_checkpoint), use_average=False)
        if not options.backbone_weights and not options.init_checkpoint:
            warn_of_random_frozen_backbone(self.model)

    def _load_initial(self, path: str, use_average: bool) -> None:
        options = self.config.train
        load_weights(
            self.model,
            path,
            allow_partial=bool(options.allow_partial_init),
            max_missing=float(options.max_missing_weights),
            use_average=use_average,
        )

    def train(self) -> Results:
        """Trains and gives the metrics of the last evaluation."""
        options = self.config.train
        loader = build_train_data(self.config, self.data)
        assert self.data.train is not None
        batch = int(self.config.dataloader.train.total_batch_size)
        schedule = self._plan(len(self.data.train), batch)
        with user_errors("optimizer", ValueError):
            node = self.config.optimizer
            optimizer = instantiate(
                {**dict(node.items()), "model": self.model, "global_batch": batch}
            )
        resumption = read_resumption(self.checkpoints) if self.arguments.resume else None
        if resumption is None:
            self._load_start()
        else:
            resumption.load_model(self.model)
        step = _construct(
            StepOptions,
            float(options.clip.max_norm),
            int(options.accumulation),
            str(self.output_dir),
        )
        ema = options.ema
        average = (
            _construct(ModelEma, self.model, float(ema.decay), float(ema.warmup))
            if ema.enabled
            else None
        )
        logger.info("%s", schedule.describe(len(self.data.train), batch))
        if warning := schedule.source.milestone_warning():
            logger.warning("%s", warning)
        wrapped = wrap_for_processes(self.model, self.device, **options.ddp)
        trainer = Trainer(wrapped, loader, optimizer, self.precision, step)
        self.open_output()
        if comm.is_main_process():
            if resumption is None:
                forget_earlier_run(self.checkpoints)
            else:
                self.checkpoints.drop_after(resumption.entry)
        evaluation = self._register_hooks(trainer, schedule, average, resumption)
        start = 0
        if resumption is not None:
            start = resumption.restore(trainer, evaluation, average)
        trainer.train(start, schedule.max_iter)
        if self.config.dataloader.train.get("on_bad_sample") == "skip":
            log_skipped_samples(loader)
        return evaluation.results

    def _plan(self, dataset_length: int, batch: int) -> IterationSchedule:
        options = self.config.train
        max_iter = FAST_DEV_ITERATIONS if options.fast_dev_run else options.max_iter
        try:
            epochs = EpochSchedule(**self.config.schedule)
            return plan_iterations(epochs, dataset_length, batch, max_iter)
        except (TypeError, ValueError) as error:
            raise UserError(f"schedule: {error}") from error

    def _register_hooks(
        self,
        trainer: Trainer,
        schedule: IterationSchedule,
        average: ModelEma | None,
        resumption: Resumption | None,
    ) -> EvaluationHook:
        options = self.config.train
        evaluators = build_evaluators(self.config, self.data, self.output_dir)
        evaluation = EvaluationHook(
            schedule.iterations(float(options.eval_period_epochs)),
            lambda: evaluate_model(self.model, self.test_loader, evaluators, average),
            self.checkpoints,
            str(options.checkpointer.best_metric),
            average,
        )
        period = options.checkpointer.period
        if period is None:
            period = schedule.iterations(float(options.checkpointer.period_epochs))
        registered: list[Any] = [
            detectron2_hooks.IterationTimer(),
            LearningRateHook(trainer.optimizer, schedule),
            EmaHook(average) if average is not None else None,
            resumption.events_hook() if resumption is not None else None,
            CheckpointHook(int(period), self.checkpoints, evaluation, average),
            evaluation,
        ]
        if comm.is_main_process():
            last = (
                trim_metrics(self.output_dir, resumption.iteration)
                if resumption is not None
                else -1
            )
            writers = build_writers(self.output_dir, schedule.max_iter, last)
            registered.append(WriterHook(writers, int(options.log_period), evaluation, last))
        trainer.register_hooks(registered)
        return evaluation


def _construct(build: Callable[..., Any], *arguments: Any) -> Any:
    """Gives ``build(*arguments)``; what it refuses is a wrong config value."""
    with user_errors("config", ValueError):
        return build(*arguments)
