"""`progress-broker` with installed packages altered as a new release might: `python -m tests.api.altered JSON serve`.

The JSON object says how: `renamed` holds names that are other ones throughout a package, as `{package: {old: new}}`,
`hidden` modules that are not there, `deleted` attributes as `module:attribute`.
"""

import importlib
import json
import runpy
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType


class RenamingLoader(SourceFileLoader):
    """Loads a module whose source has other names."""

    names: dict[str, str]

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        for old, new in self.names.items():
            source = source.replace(old, new)
        return compile(source, self.path, "exec", dont_inherit=True)


class RenamingFinder(MetaPathFinder):
    """Finds the modules of packages that are altered."""

    def __init__(self, renamed: dict[str, dict[str, str]]) -> None:
        self._renamed = renamed

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        names = self._renamed.get(fullname.partition(".")[0])
        spec = PathFinder.find_spec(fullname, path, target) if names else None
        if spec is not None and names and isinstance(spec.loader, SourceFileLoader):
            spec.loader = loader = RenamingLoader(fullname, spec.loader.path)
            loader.names = names
        return spec


def main() -> None:
    how = json.loads(sys.argv.pop(1))
    sys.meta_path.insert(0, RenamingFinder(how.get("renamed", {})))
    for module in how.get("hidden", ()):
        sys.modules[module] = None  # type: ignore[assignment]
    for each in how.get("deleted", ()):
        module, _, path = each.partition(":")
        *owners, name = path.split(".")
        owner = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        delattr(owner, name)
    runpy.run_module("progress_cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
