"""The distribution `vdisk`: the ceph-mgr module, `vdisk-install`, which puts it into a mgr, and the CSI driver."""

import re
import subprocess
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


def version() -> str:
    """Return the version, which is written down in one place."""
    text = (HERE / "src/vdisk_install/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


class BuildWithProto(build_py):
    """Compiles the CSI interface into what is built; in the source tree tools/proto.py does that."""

    def run(self) -> None:
        """Build the packages, then what is generated."""
        super().run()
        if self.editable_mode:
            return
        kinds = ("python_out", "pyi_out", "grpc_python_out")
        out = [f"--{kind}={Path(self.build_lib).resolve()}" for kind in kinds]
        argv = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *out, "vdisk_csi/proto/csi.proto"]
        subprocess.run(argv, cwd=HERE / "src", check=True)


setup(
    name="vdisk",
    version=version(),
    description="Virtual disks as a native service of Ceph: a ceph-mgr module for volumes and snapshots on RBD",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=find_packages("src", include=["vdisk", "vdisk.*", "vdisk_install", "vdisk_csi", "vdisk_csi.*"]),
    package_data={"vdisk": ["web/page/*"], "vdisk_csi": ["proto/*.proto"]},
    cmdclass={"build_py": BuildWithProto},
    # rados and rbd come with Ceph's own packages; the mgr module needs nothing else at run time.
    install_requires=[],
    # What grpcio-tools of pyproject.toml generates needs these or later ones.
    extras_require={"csi": ["grpcio>=1.85.1,<2", "protobuf>=7.35,<8", "prometheus_client>=0.20,<1"]},
    entry_points={
        "console_scripts": ["vdisk-install = vdisk_install.cli:main", "vdisk-csi = vdisk_csi.main:main"],
    },
    zip_safe=False,
    classifiers=[
        "Environment :: Plugins",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: System :: Filesystems",
    ],
)
