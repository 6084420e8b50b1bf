"""The command group: which commands there are, and how an error leaves the program.

Exit codes: 0 ok; 1 the check that was asked for failed (not exact); 2 usage or input error;
3 an error that pcgraph did not foresee; 130 interrupted; 141 the reader of the output went away.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import PCGraphError
from .bench import bench
from .convert import convert
from .demo import demo
from .inspect import inspect
from .options import Debug, debugging
from .reproduce import reproduce
from .terminal import discard_stdout, say_error
from .verify import verify

INPUT_ERROR = 2
UNFORESEEN = 3
INTERRUPTED = 130
READER_GONE = 141


class _Commands(TyperGroup):
    """Turns errors into one message and an exit code, whichever way the group is called."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:  # pcgraph inspect ... | head
            discard_stdout()
            raise typer.Exit(READER_GONE) from None
        except Exception as error:
            # typer's own errors (usage, exit) carry their exit code and print themselves.
            if hasattr(error, "exit_code") or isinstance(error, typer.Abort):
                raise
            foreseen = isinstance(error, PCGraphError)
            if debugging(ctx):
                traceback.print_exc()
            elif foreseen:
                say_error(str(error))
            else:
                say_error(f"{type(error).__name__}: {error}\n  do:     run again with --debug to see where")
            raise typer.Exit(INPUT_ERROR if foreseen else UNFORESEEN) from None


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def _pcgraph(debug: Debug = False) -> None:
    """Compile PyTorch models to predictive coding networks that learn exactly like backprop."""


app.command()(inspect)
app.command()(verify)
app.command()(convert)
app.command()(demo)
app.command()(bench)
app.command()(reproduce)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: without the program's name; None reads ``sys.argv``.
    """
    code = 0
    try:
        app(args=None if arguments is None else list(arguments), prog_name="pcgraph")
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    try:
        sys.stdout.flush()  # here, where a closed pipe can be answered, and not at the interpreter's exit
    except BrokenPipeError:
        discard_stdout()
        return READER_GONE
    return code
