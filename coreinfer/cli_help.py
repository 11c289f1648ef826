"""How ``--help`` reads: each verb's summary as a whole sentence, arguments as Click's users know them."""

from collections.abc import Callable
from typing import Any

from typer.core import TyperArgument, TyperCommand

BOTH = {"help_option_names": ["-h", "--help"]}  # a context's settings; its verbs have them too


class Verb(TyperCommand):
    """A verb whose arguments are written DATASET, [ARTIFACT] and [PROMPTS]..., whatever Typer's version writes."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._arguments = [param for param in self.params if isinstance(param, TyperArgument)]
        for argument in self._arguments:
            argument.metavar = argument.metavar or str(argument.name).upper()

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Of the line that begins with "Usage:"."""
        return [self.options_metavar or "", *map(_in_usage, self._arguments)]


def summary(verb: Callable[..., None]) -> str:
    """The first sentence of what a verb's docstring says, which Typer would cut to what fits one line."""
    first = " ".join((verb.__doc__ or "").split("\n\n")[0].split())
    return first.partition(". ")[0].removesuffix(".") + "."


def _in_usage(argument: TyperArgument) -> str:
    name = str(argument.metavar)
    return (name if argument.required else f"[{name}]") + "..." * (argument.nargs == -1)
