"""The Kubernetes manifests as `kubectl kustomize` renders them."""

import os
import pathlib
import shutil
import subprocess
from functools import cache
from typing import Any

import yaml

from tests.conftest import missing

ROOT = pathlib.Path(__file__).parents[2]
OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
NAMES = sorted(path.parent.relative_to(OVERLAYS).as_posix() for path in OVERLAYS.rglob("kustomization.yaml"))
OF_PODS = ("Deployment", "Job")
Manifest = dict[str, Any]
Manifests = tuple[Manifest, ...]


def rendered(folder: pathlib.Path) -> Manifests:
    """What a folder with a kustomization.yaml stands for. A warning is an error."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        missing("no kubectl on the PATH")
    made = subprocess.run([str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, ""), made.stderr
    return tuple(yaml.load_all(made.stdout, Loader=yaml.CSafeLoader))


@cache
def overlay(name: str) -> Manifests:
    """One of the shipped overlays."""
    return rendered(OVERLAYS / name)


def overlay_of_the_docs(folder: pathlib.Path) -> Manifests:
    """The overlay that docs/deploying.md shows, written into `folder`."""
    page = (ROOT / "docs" / "deploying.md").read_text()
    text = page.split("```yaml\n")[1].split("```")[0]
    (folder / "kustomization.yaml").write_text(text.replace("vendor/guardfleet", os.path.relpath(ROOT, folder.resolve())))
    return rendered(folder)


def of_kind(manifests: Manifests, *kinds: str) -> list[Manifest]:
    """The manifests of these kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: Manifests, kind: str, name: str) -> Manifest:
    """The one manifest of this kind and name."""
    (found,) = (manifest for manifest in of_kind(manifests, kind) if manifest["metadata"]["name"] == name)
    return found


def pods(manifests: Manifests) -> dict[str, Manifest]:
    """The pods' specifications, by the name of what makes them; `labels` are theirs."""
    made = of_kind(manifests, *OF_PODS)
    templates = {manifest["metadata"]["name"]: manifest["spec"]["template"] for manifest in made}
    return {name: {**template["spec"], "labels": template["metadata"]["labels"]} for name, template in templates.items()}


def selected(manifests: Manifests, selector: Manifest) -> set[str]:
    """What makes the pods that a selector takes."""
    wanted = selector.get("matchLabels", {}).items()
    return {name for name, pod in pods(manifests).items() if wanted <= pod["labels"].items()}
