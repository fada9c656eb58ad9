"""Builds the shim and the libraries of the data path when the package is built, and puts them into the wheel.

The bases of processors' images go with them: in a source tree they are in `images`, where people look for them.

The wheel is for this machine's architecture, or for those named in `CONNECTOR_SHIM_ARCHS` (commas or spaces between).
"""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIM = "runner/launch/shim"
IMAGES = "images"
PACKAGE_IMAGES = "runner/pack/images"


class CustomBuildHook(BuildHookInterface[Any]):
    """Runs `runner/launch/shim/build.py` for wheels and editable installs."""

    def dependencies(self) -> list[str]:
        """`ziglang` where the C compiler at hand cannot do it."""
        return ["ziglang"] if _shim_builder(self.root).needs_zig(_arches()) else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and name what was built: the folder itself is ignored by git, and so by hatchling."""
        if version != "editable":  # an editable install reads them where they are
            build_data["force_include"][str(Path(self.root, IMAGES))] = PACKAGE_IMAGES
        builder = _shim_builder(self.root)
        for arch in _arches():
            binary = builder.build(arch, Path(self.root, SHIM, "bin"))
            build_data["artifacts"].append(f"/{SHIM}/bin/{binary.name}")
            for source in builder.LIBRARIES:
                library = builder.build_library(source, arch)
                build_data["artifacts"].append(f"/{library.relative_to(self.root)}")
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + ".".join(f"linux_{arch}" for arch in sorted(_arches()))


def _arches() -> tuple[str, ...]:
    named = os.environ.get("CONNECTOR_SHIM_ARCHS", "").replace(",", " ").split()
    return tuple(dict.fromkeys(named)) or (platform.machine(),)


def _shim_builder(root: str) -> ModuleType:
    """The build script, by its path: while the package is built it cannot be imported."""
    spec = importlib.util.spec_from_file_location("connector_shim_build", Path(root, SHIM, "build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
