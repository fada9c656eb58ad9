"""Static programs of the kill suites: they run in sandboxes and images that have nothing else."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.children.build import BUILD_LIMIT_S
from tests.conftest import without


@contextlib.contextmanager
def static_program(source: Path) -> Iterator[Path]:
    """A folder that anybody may look into, with nothing but the program of a C file, under the file's name."""
    compiler = shutil.which("cc")
    if compiler is None:
        without("there is no cc")
    folder = Path(tempfile.mkdtemp(prefix=f"connector-{source.stem}-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        command = [compiler, "-O2", "-static", "-D_GNU_SOURCE", "-o", str(folder / source.stem), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False)
        assert done.returncode == 0, f"{command} failed:\n{done.stderr}"
        yield folder
    finally:
        shutil.rmtree(folder)
