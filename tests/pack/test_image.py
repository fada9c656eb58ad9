"""An image's name is the same wherever the same folder is, and another for every change that matters."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from runner.plan.content import ContentError
from runner.plan.image import ImageError, Recipe, base_language, base_recipe, image_tag, recipe_of, with_images
from runner.spec.load import load_document
from runner.spec.model import Home, Processor


def put(folder: Path, keys: dict[str, Any] | None = None, **files: str) -> Path:
    """A processor's folder; a file's name has `_` for its dot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "processor.toml").write_text(
        tomli_w.dumps({"name": "up", "command": ["python3", "up.py"]} | (keys or {}))
    )
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def spec_of(folder: Path, **keys: Any) -> Processor:
    document = {"name": "p", "processors": {"x": {"use": folder.name} | keys}}
    spec = load_document(document, folder=folder.parent, home=Home.CONTAINER).pipeline.processors["x"]
    assert spec.home is Home.CONTAINER
    return spec


def recipe(folder: Path, **keys: Any) -> Recipe:
    return recipe_of(spec_of(folder, **keys))


def test_the_name_says_which_folder_it_is(tmp_path: Path) -> None:
    first = recipe(put(tmp_path / "a", up_py="1"))
    assert re.fullmatch(r"connector/up:[0-9a-f]{12}", first.name)
    assert first.digest.startswith(first.name.rpartition(":")[2])
    shutil.copytree(tmp_path / "a", tmp_path / "b/other")
    assert recipe(tmp_path / "b/other").name == first.name
    assert image_tag(spec_of(tmp_path / "a")) == first.name
    (tmp_path / "a/up.py").write_text("2")
    assert recipe(tmp_path / "a").name != first.name


def test_params_are_not_part_of_it(tmp_path: Path) -> None:
    keys = {"command": ["python3", "up.py", "{word}"], "params": {"word": {"type": "string", "required": True}}}
    folder = put(tmp_path / "a", keys)
    recipes = [recipe(folder, params={"word": word}) for word in ("one", "two")]
    assert recipes[0] == recipes[1]
    assert "CMD" not in recipes[0].dockerfile
    assert 'CMD ["python3", "up.py"]' in recipe(put(tmp_path / "b")).dockerfile


@pytest.mark.parametrize(
    ("command", "language"),
    [(["python3", "x"], "python"), (["node", "x"], "node"), (["java", "x"], "java"), (["./run"], "static")],
)
def test_each_language_has_its_base(command: list[str], language: Any, tmp_path: Path) -> None:
    folder = put(
        tmp_path / "a", {"command": command} | ({"build": {"language": "static"}} if language == "static" else {})
    )
    base = base_recipe(language)
    assert recipe(folder).bases == (base.name,)
    assert base_language(base.name) == language
    assert base_language("debian:trixie-slim") is None
    assert re.search(r"^USER 65532:65532$", base.dockerfile, re.MULTILINE)
    assert 'LABEL org.opencontainers.image.title="' in base.dockerfile


def test_build_keys(tmp_path: Path) -> None:
    folder = put(tmp_path / "a", {"command": ["jq", "."], "build": {"base": "debian:x", "packages": ["jq"]}})
    made = recipe(folder)
    assert made.bases == ("debian:x",)
    assert "--no-install-recommends jq &&" in made.dockerfile
    assert made.prefix == "processor/"


def test_a_dockerfile_of_its_own(tmp_path: Path) -> None:
    build = {"dockerfile": "Dockerfile", "target": "last", "args": {"V": "1"}}
    folder = put(tmp_path / "a", {"build": build}, Dockerfile="ARG V\nFROM base:$V AS last\n")
    made = recipe(folder)
    assert (made.bases, made.target, made.args) == (("base:1",), "last", {"V": "1"})
    assert (made.dockerfile_path, made.prefix) == ("Dockerfile", "")
    names = {made.name}
    for change in ({"target": "first"}, {"args": {"V": "2"}}):
        put(folder, {"build": build | change})
        names.add(recipe(folder).name)
    assert len(names) == 3
    (folder / ".dockerignore").write_text("Dockerfile\n")
    assert recipe(folder).dockerfile_path is None
    (tmp_path / "Outside").write_text("FROM scratch\n")
    put(folder, {"build": {"dockerfile": "../Outside"}})
    assert (recipe(folder).dockerfile_path, recipe(folder).bases) == (None, ())


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (
            {"command": ["jq", "."]},
            r'processors\.x: no image can be made of .*: nothing tells the language of "jq".*base =',
        ),
        ({"command": ["./gone"]}, r"gone cannot be read: no such file"),
        (
            {"build": {"language": "static", "packages": ["jq"]}},
            r"packages cannot be installed into an image that is emp",
        ),
    ],
)
def test_what_cannot_be_made_says_what_to_write(keys: dict[str, Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=what):
        recipe(put(tmp_path / "a", keys))


def test_a_dockerfile_that_is_no_text(tmp_path: Path) -> None:
    folder = put(tmp_path / "a", {"build": {"dockerfile": "Dockerfile"}})
    (folder / "Dockerfile").write_bytes(b"FROM \xff")
    with pytest.raises(ImageError, match="it is not utf-8"):
        recipe(folder)


def test_names_that_no_registry_takes(tmp_path: Path) -> None:
    assert recipe(put(tmp_path / "a", {"name": "up__and-_"})).name.startswith("connector/up-and:")


def test_libraries_of_this_machine_stay_here(tmp_path: Path) -> None:
    folder = put(tmp_path / "a", {"command": ["node", "x.js"]})
    (folder / "node_modules/dep").mkdir(parents=True)
    (folder / "node_modules/dep/index.js").write_text("")
    assert "node_modules/dep/index.js" in {entry.path for entry in recipe(folder).entries}
    (folder / "package.json").write_text('{"dependencies": {"dep": "1"}}')
    assert not [entry.path for entry in recipe(folder).entries if "node_modules" in entry.path]


def test_a_pipeline_gets_the_names(tmp_path: Path) -> None:
    put(tmp_path / "a")
    document = {
        "name": "p",
        "processors": {
            "one": {"use": "a", "writes": "c"},
            "two": {"image": "other:1", "reads": "c", "pull": "always"},
        },
    }
    moved = with_images(load_document(document, folder=tmp_path, home=Home.CONTAINER).pipeline).processors
    assert (moved["one"].image, moved["one"].pull) == (recipe(tmp_path / "a").name, "never")
    assert (moved["two"].image, moved["two"].pull) == ("other:1", "always")
    here = load_document(document, folder=tmp_path).pipeline
    assert with_images(here) == here


def test_what_cannot_be_read_names_the_processor(tmp_path: Path) -> None:
    folder = put(tmp_path / "a")
    (folder / ".dockerignore").write_text("[z-a]")
    with pytest.raises(ContentError, match="dockerignore:1"):
        recipe(folder)
