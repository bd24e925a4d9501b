"""The code of workflow modules, read and compiled once for each process.

The sandbox loads a workflow's module anew for every run, from its file: it costs a release worker more than anything else in a
replay where no bytecode is kept beside the sources (a read-only file system, `PYTHONDONTWRITEBYTECODE`), and a file that is changed
under a running worker would be what its next run begins with, under a build ID that says otherwise. Kept, the code is that of the
first load, for all runs, and is in memory once.

What is shared is the compiled code, which nothing can change; every run still gets a module of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

PACKAGE = "workflows"

_codes: dict[tuple[str, str], CodeType | None] = {}


class _KeptLoader(SourceFileLoader):
    """Loads a module from its file the first time, and from memory from then on."""

    def get_code(self, fullname: str) -> CodeType | None:
        """See base class."""
        key = (fullname, str(self.path))
        if key not in _codes:
            _codes[key] = super().get_code(fullname)
        return _codes[key]


class _WorkflowFinder(MetaPathFinder):
    """Finds modules of workflows where they are, and has them loaded by `_KeptLoader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See base class."""
        if fullname.partition(".")[0] != PACKAGE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _KeptLoader(spec.loader.name, spec.loader.path)
        return spec


_finder = _WorkflowFinder()


def keep_workflow_code() -> None:
    """Keep the code of workflow modules from now on; safe to repeat."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
