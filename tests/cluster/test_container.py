"""The layer on a Ceph image (deploy/container): built as the documentation says, and at work in a cluster.

No image of the Ceph project is at hand where tests run. The one below is made of a release's root and gets what those
images have in their configuration; buildah, which `podman build` is, does the rest. Its images are in a directory that
goes with the test.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.test_deb import CONTROLLER, MODULE, at_work, root_of
from harness import cli
from harness.releases import REPO, SUITES, Release
from harness.scratch import inside

BELOW = "localhost/ceph"
LABELS = {"ceph": "True", "org.opencontainers.image.ref.name": "centos", "CEPH_SHA1": "0123456"}
"""As images of the Ceph project have them; cephadm looks for ceph=True among the images of a host."""


class Images:
    """buildah with a store of its own."""

    def __init__(self, where: Path) -> None:
        self._options = ["--root", str(where / "store"), "--runroot", str(where / "run"), "--storage-driver", "overlay"]

    def __call__(self, *argv: str | Path, check: bool = True, timeout: float = 200) -> cli.Result:
        """Run buildah to its end."""
        return cli.run(["buildah", *self._options, *map(str, argv)], check=check, timeout=timeout)

    def mounted(self, image: str) -> Path:
        """Return the root of a new container of the image."""
        container = self("from", "--pull-never", image).out.strip()
        return Path(self("mount", container).out.strip())

    def config(self, image: str) -> dict[str, Any]:
        """Return how an image is to be run, without buildah's own mark on it."""
        told: dict[str, Any] = json.loads(self("inspect", "--type", "image", image).out)["OCIv1"]["config"]
        told["Labels"].pop("io.buildah.version", None)
        return told

    def build(self, command: str, context: Path, tag: str, check: bool = True) -> cli.Result:
        """Run the documentation's command to build the layer, in a copy of the repository."""
        words = shlex.split(re.sub(r"<the image that [^>]*>", BELOW, re.sub(r"<your registry>\S*", tag, command)))
        assert words[:2] == ["podman", "build"], command
        # From the copy's directory, which the command has its paths from. No runtime is needed: a chroot will do.
        words = [str(context / word) if (context / word).exists() else word for word in words]
        return self("build", "--isolation", "chroot", "--pull-never", *words[2:], check=check)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """buildah, if it can work here; what it mounts is gone afterwards."""
    if shutil.which("buildah") is None:
        pytest.skip('there is no buildah: "make bootstrap" installs it')
    found = Images(tmp_path_factory.mktemp("images"))
    try:
        container = found("from", "scratch").out.strip()
        found("mount", container)
    except cli.CephError as error:
        pytest.skip(f"buildah can't work on this machine: {error.result.err.strip().splitlines()[-1]}")
    found("rm", "--all")
    yield found
    found("rm", "--all")
    found("rmi", "--all", "--force")


@pytest.fixture
def below(release_name: str, images: Images) -> str:
    """An image of the release to build upon."""
    if release_name != "tentacle":
        pytest.skip("one release is enough: the layer is the same for all")
    root = root_of(release_name)
    container = images("from", "scratch").out.strip()
    subprocess.run(["cp", "-a", f"{root}/.", images("mount", container).out.strip()], check=True, timeout=200)
    labels = [word for name, value in LABELS.items() for word in ("--label", f"{name}={value}")]
    images("config", *labels, "--env", "CEPH_REF=tentacle", "--env", f"PATH={cli.PATH}", container)
    images("commit", "--quiet", "--rm", container, BELOW)
    return BELOW


def documented() -> str:
    """The command that builds the layer."""
    (command,) = re.findall(r"^podman build .*$", (REPO / "doc/install.md").read_text(), re.MULTILINE)
    return str(command)


@pytest.mark.timeout(600)
def test_the_layer_is_built_and_at_work(release_name: str, below: str, images: Images, tmp_path: Path) -> None:
    context = tmp_path / "repository"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in ("src", "deploy"):
        shutil.copytree(REPO / part, context / part, ignore=ignored)
    # A checkout under a strict umask, whose files only their owner may read.
    subprocess.run(["chmod", "-R", "go=", context], check=True)
    built = images.build(documented(), context, "localhost/ceph-vdisk:1")
    assert f"installed in {MODULE}" in built.out
    # What cephadm and Rook read from an image, and how they start it, is as before.
    assert images.config("localhost/ceph-vdisk:1") == images.config(below)

    root = images.mounted("localhost/ceph-vdisk:1")
    release = Release(name=release_name, suite=SUITES[release_name], native=False, root=root)
    source = REPO / "src/vdisk"
    wanted = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    wanted = {path: content for path, content in wanted.items() if "__pycache__" not in path.parts}
    put = {path.relative_to(release.path(MODULE)): path for path in release.path(MODULE).rglob("*") if path.is_file()}
    assert {path: at.read_bytes() for path, at in put.items() if "__pycache__" not in path.parts} == wanted
    assert release.path(CONTROLLER).read_bytes() == (REPO / "src/vdisk_install/controller.py").read_bytes()
    # A mgr drops root's rights for those of the user ceph: it may read all of it, change none, and need not compile.
    for path in (MODULE, CONTROLLER):
        info = release.path(path).stat()
        assert (info.st_uid, info.st_gid) == (0, 0)
        unfit = ["find", path, "(", "!", "-readable", "-o", "-type", "d", "!", "-executable", "-o", "-writable", ")"]
        assert inside(release, "setpriv", "--reuid=ceph", "--regid=ceph", "--clear-groups", *unfit).out == ""
    for path in put:
        compiled = f"__pycache__/{path.stem}.cpython-*.pyc"
        assert path.suffix != ".py" or list(release.path(MODULE).glob(str(path.parent / compiled))), path
    with at_work(release, with_dashboard=True):
        pass

    # What does not load in the image's Python becomes no image.
    with (context / "src/vdisk/service/core.py").open("a") as file:
        file.write("def broken(:\n")
    failed = images.build(documented(), context, "localhost/ceph-vdisk:2", check=False)
    assert failed.rc != 0
    assert "the module is not installed, nothing was changed: service/core.py" in failed.err + failed.out
    assert "ceph-vdisk:2" not in images("images", "--noheading").out
