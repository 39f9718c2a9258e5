"""What the programs in ``tools`` share: the form of command lines, messages and exit statuses.

Role in the flow: around the work of a tool. It imports neither torch nor Detectron2, which take
seconds, so that wrong arguments are answered at once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config.overrides import ConfigError
from .errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, UserError

_OVERRIDE = re.compile(r"\+?[A-Za-z_][\w.-]*=")


class _ToolParser(argparse.ArgumentParser):
    """A parser that knows where the list of an option ends: `--keep-ratios 0.1 0.3 key=value`."""

    def parse_known_intermixed_args(  # type: ignore[override]  # narrower than argparse's
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parses after moving overrides out of lists; see argparse."""
        words = self._with_overrides_before_lists(list(sys.argv[1:] if args is None else args))
        return super().parse_known_intermixed_args(words, namespace)

    def _with_overrides_before_lists(self, words: list[str]) -> list[str]:
        """Gives the words with overrides before the lists that they would end up in."""
        lists = {
            name for action in self._actions if action.nargs == "+"
            for name in action.option_strings
        }  # fmt: skip
        found: list[str] = []
        option, first, number = "", 0, 0
        for position, word in enumerate(words):
            if word == "--":
                return found + words[position:]
            if option and _OVERRIDE.match(word) and not Path(word).exists():
                found.insert(first, word)
                first += 1
                is_last = position + 1 == len(words) or words[position + 1].startswith("--")
                if is_last and not number:
                    self.error(f"{option} has nothing before the key=value arguments")
                continue
            if word in lists:
                # Lists that follow each other have the overrides before the first of them.
                first = first if option else len(found)
                option, number = word, 0
            elif word.startswith("--"):
                option = ""
            else:
                number += 1
            found.append(word)
        return found


def tool_parser(description: str | None, examples: str) -> argparse.ArgumentParser:
    """Gives the parser of a tool, which shows its text as it is written.

    Its ``parse_intermixed_args`` finds ``key=value`` overrides also behind options that take lists.

    Args:
        description: Docstring of the tool.
        examples: Command lines, shown behind the options.
    """
    return _ToolParser(
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_device_option(add: Callable[..., object]) -> None:
    """Adds ``--device``, which wins over ``train.device`` of config and overrides.

    Args:
        add: ``add_argument`` of a parser or of a group of it.
    """
    add(
        "--device",
        metavar="DEVICE",
        help="auto (a GPU where there is one), cpu, cuda or cuda:N; default: train.device",
    )


def add_picture_options(parser: argparse.ArgumentParser, folder: str) -> None:
    """Adds what a tool that draws takes: images, output, device, keeping ratio, overrides.

    Args:
        parser: The parser of the tool.
        folder: Folder in ``train.output_dir`` that the pictures go to unless another is named.
    """
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--dataset", metavar="NAME", help="val (default) or train of the config, or a name"
    )
    source.add_argument("--input", nargs="+", metavar="PATH", help="image files and folders")
    add("--output", metavar="FOLDER", help=f"default: the folder '{folder}' in train.output_dir")
    add("--num-images", type=int, metavar="N", help="default: 10 of a data set, all of --input")
    add("--keep-ratio", metavar="RHO", help="in (0, 1], or any other form of keeping ratio")
    add_device_option(add)
    add("--score-threshold", type=float, default=0.3, metavar="T", help="default: 0.3")
    add("overrides", nargs="*", metavar="key=value", help="changes to the config")


def check_numbers(
    parser: argparse.ArgumentParser, options: argparse.Namespace, **least: int
) -> None:
    """Ends the program with a message where a number is out of range.

    Args:
        parser: The parser of the tool.
        options: What was parsed. A ``score_threshold`` must lie between 0 and 1.
        **least: Names of options, and the least number of each; an option that is None is left out.
    """
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and value < low:
            parser.error(f"--{name.replace('_', '-')} is {value}, expected {low} or more")
    threshold = getattr(options, "score_threshold", 0.0)
    if not 0.0 <= threshold <= 1.0:
        parser.error(f"--score-threshold is {threshold}, expected 0 to 1")


def output_folder(given: str | None, run_folder: object, name: str) -> Path:
    """Gives the folder for what a tool writes.

    Args:
        given: What the command line names, or None.
        run_folder: ``train.output_dir`` of the config.
        name: Folder in it to use where none is given.
    """
    return Path(given) if given else Path(str(run_folder)) / name


def run_tool(work: Callable[[], int | None], when_interrupted: str = "interrupted") -> int:
    """Gives the exit status of a tool after doing its work.

    Args:
        work: Does it, and gives its exit status, None for done.
        when_interrupted: What to say on stderr after Ctrl-C.

    Returns:
        0 done, 2 the input has to be corrected (said on stderr in one message), 130 interrupted, or
        what the work gave.
    """
    try:
        status = work()
    except (UserError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(when_interrupted, file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK if status is None else status
