"""Commands whose code is imported only when they are called: `--version`, help and completion stay quick."""

import sys
from importlib import import_module
from typing import Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Command(TyperCommand):
    """A command that writes its usage as people know it, and plain text where no terminal is."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line: an argument as its `metavar` says, without braces."""
        arguments = [it for it in self.params if it.param_type_name == "argument"]
        return ["[OPTIONS]", *(it.metavar or (it.name or "").upper() for it in arguments)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with boxes only on a terminal."""
        self.rich_markup_mode = _markup(sys.stdout)
        super().format_help(ctx, formatter)


class LazyCommand(TyperCommand):
    """Stands for a command in help and completion, which show only its name and its summary."""

    def __init__(self, name: str, where: str, summary: str, **settings: Any) -> None:
        super().__init__(name, help=summary)
        self._where, self._settings = where, settings

    def load(self) -> Any:
        """Import the command and return it."""
        module, _, function = self._where.partition(":")
        app = typer.Typer(add_completion=False)
        app.command(self.name, cls=Command, context_settings=self._settings)(
            getattr(import_module(f"progress_cli.commands.{module}"), function)
        )
        return get_command(app)


class LazyGroup(TyperGroup):
    """A group that imports a command when it is called."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before the command; completion skips them, as typer checks their values with pydantic."""
        if not ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        options = self.params, self.add_help_option
        self.params, self.add_help_option = [], False
        try:
            return super().parse_args(ctx, args)
        finally:
            self.params, self.add_help_option = options

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the loaded command, and its arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with boxes only on a terminal."""
        self.rich_markup_mode = _markup(sys.stdout)
        super().format_help(ctx, formatter)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command. Its usage errors are in boxes only on a terminal."""
        self.rich_markup_mode = _markup(sys.stderr)
        return super().main(*args, **options)


def _markup(stream: TextIO) -> Any:
    return "rich" if stream.isatty() else None
