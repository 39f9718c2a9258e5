#!/usr/bin/env python3
"""Draws predictions beside the ground truth, and the kept tokens of each level, as PNG files.

Images come from a data set (that of the config's evaluation unless another is named) or from files
and folders. Exit status: 0 done, 2 when the input has to be corrected (the message says what).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

EXAMPLES = """
examples:
  the first 10 evaluation images of a finished run
    visualize_predictions.py --config-file output/quickstart/config.yaml
  other weights and another keeping ratio, files and a folder
    visualize_predictions.py --config-file sparse_detr/sparse_detr_r50_rho10_50ep \\
        --weights model.pth --keep-ratio 0.3 --input street.jpg holiday/
"""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Gives the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE_OR_NAME", help="the config")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint; default: train.init_checkpoint=FILE of this command line, else the last "
        "one in train.output_dir, else train.init_checkpoint of the config",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dataset", metavar="NAME", help="data set; default: the evaluation data")
    source.add_argument("--input", nargs="+", metavar="PATH", help="image files and folders")
    parser.add_argument(
        "--output", metavar="FOLDER", help="default: the folder 'pictures' in train.output_dir"
    )
    parser.add_argument(
        "--num-images", type=int, metavar="N", help="default: 10 of a data set, all of --input"
    )
    parser.add_argument("--score-threshold", type=float, default=0.3, metavar="T")
    parser.add_argument("--keep-ratio", type=float, metavar="RHO", help="in (0, 1]")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    options = parser.parse_intermixed_args(arguments)
    if not 0.0 <= options.score_threshold <= 1.0:
        parser.error(f"--score-threshold is {options.score_threshold}, expected 0 to 1")
    if options.num_images is not None and options.num_images < 1:
        parser.error(f"--num-images is {options.num_images}, expected 1 or more")
    if options.input is not None:
        # `--input a.jpg model.num_classes=3`: argparse cannot tell where the paths end.
        is_override = {text: "=" in text and not Path(text).exists() for text in options.input}
        options.overrides += [text for text, yes in is_override.items() if yes]
        options.input = [text for text, yes in is_override.items() if not yes]
        if not options.input:
            parser.error("--input has no path before the key=value arguments")
    return options


def image_records(paths: list[str]) -> list[dict[str, Any]]:
    """Gives a data set dictionary for each image file, those of folders in alphabetical order.

    Raises:
        UserError: A path does not exist, or a folder holds no image.
    """
    from sparse_detr.engine.errors import UserError

    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise UserError(
                    f"--input: folder {path} holds no image ({', '.join(IMAGE_SUFFIXES)})"
                )
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"--input: {path} does not exist")
    return [{"file_name": str(file), "image_id": number} for number, file in enumerate(files)]


def dataset_records(config: Any, name: str | None) -> list[dict[str, Any]]:
    """Gives the dictionaries of a data set of the config, or of a registered one."""
    from detectron2.config import instantiate

    from sparse_detr.data.datasets import load_dataset
    from sparse_detr.engine.errors import user_errors

    with user_errors("data set", ValueError, OSError):
        for loader in (config.dataloader.test, config.dataloader.train):
            if name is None or loader.dataset.get("names") == name:
                return list(instantiate(loader.dataset))
        return load_dataset(str(name))


def class_names(config: Any, name: str | None) -> list[str] | None:
    """Gives the class names of a data set; None where they cannot be known."""
    from detectron2.config import instantiate
    from detectron2.data import MetadataCatalog

    wanted = name or config.dataloader.test.dataset.get("names")
    if not isinstance(wanted, str):
        wanted = wanted[0]
    names = MetadataCatalog.get(wanted).get("thing_classes")
    if names is None:
        try:
            instantiate(config.dataloader.test.dataset)
        except (ValueError, OSError) as error:
            print(f"class names are not known, ids are shown instead ({error})", file=sys.stderr)
            return None
        names = MetadataCatalog.get(wanted).get("thing_classes")
    return names


def find_weights(config: Any, options: argparse.Namespace) -> str:
    """Gives the checkpoint file to use.

    Raises:
        UserError: None is given and the run has none.
    """
    from sparse_detr.engine.errors import UserError
    from sparse_detr.engine.run_state import weights_to_use

    found = options.weights or weights_to_use(config, options.overrides)
    if not found:
        raise UserError(
            f"no weights: give --weights FILE ({config.train.output_dir} holds no checkpoint)"
        )
    return str(found)


def draw(options: argparse.Namespace) -> Path:
    """Gives the folder of the pictures after writing them."""
    from detectron2.config import instantiate

    from sparse_detr.config.loading import load_config
    from sparse_detr.data.mapper import BadSampleError
    from sparse_detr.engine.errors import user_errors
    from sparse_detr.inference import build_model_for_inference
    from sparse_detr.visualization import PictureOptions, write_pictures

    config = load_config(options.config_file, options.overrides)
    if options.input is not None:
        records = image_records(options.input)
        limit = options.num_images or len(records)
    else:
        records = dataset_records(config, options.dataset)
        limit = options.num_images or 10
    records = records[:limit]
    weights = find_weights(config, options)
    model = build_model_for_inference(
        config, weights, str(config.train.device), keep_ratio=options.keep_ratio
    )
    mapper = instantiate(config.dataloader.test.mapper)
    shown = PictureOptions(class_names(config, options.dataset), options.score_threshold)
    output = Path(options.output or Path(str(config.train.output_dir)) / "pictures")
    print(f"Drawing {len(records)} images with {weights}, {describe_ratio(model)}", flush=True)
    with user_errors("image", BadSampleError), user_errors(f"--output {output}", OSError):
        pictures = write_pictures(model, mapper, records, output, shown)
        for number, files in enumerate(pictures, start=1):
            print(f"[{number}/{len(records)}] {', '.join(f.name for f in files)}", flush=True)
    return output


def describe_ratio(model: Any) -> str:
    """Gives the keeping ratio in words."""
    if model.keep_ratio is None:
        return "a dense encoder (no tokens are selected, so only predictions are drawn)"
    return f"keeping ratio {model.keep_ratio:g}"


def main(arguments: list[str] | None = None) -> int:
    """Gives the exit status after drawing."""
    options = parse_arguments(arguments)
    # Imported after the command line is checked: torch and Detectron2 take seconds.
    from sparse_detr.config.overrides import ConfigError
    from sparse_detr.engine.errors import EXIT_OK, EXIT_USAGE, UserError

    try:
        output = draw(options)
    except (UserError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"The pictures are in {output}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
