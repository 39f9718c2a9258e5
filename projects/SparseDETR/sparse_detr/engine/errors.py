"""The ends that are not bugs: input to correct, a diverged training, a missed result.

Role in the flow: the engine raises them, :mod:`sparse_detr.engine.program` turns them into one
message and an exit code. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Input that the user has to correct: exit code 2, the message alone on stderr."""


class TrainingDivergedError(FloatingPointError):
    """A loss, prediction or gradient stopped being finite: exit code 1, the message says where.

    Args:
        message: What was not finite, when, for which images, and what to do.
        dump_path: The file that holds the batch; empty where it could not be written.
    """

    def __init__(self, message: str, dump_path: str) -> None:
        super().__init__(message)
        self.dump_path = dump_path


class ResultsMissedError(Exception):
    """The evaluation missed ``train.expected_results``: exit code 1."""


@contextmanager
def user_errors(doing: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turns errors of the given kinds into :class:`UserError`; for calls that judge input.

    Args:
        doing: What was being done, the start of the message.
        *kinds: Exception classes to convert; a UserError passes unchanged.

    Raises:
        UserError: The block raised one of ``kinds``.
    """
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        raise UserError(f"{doing}: {text or type(error).__name__}") from error
