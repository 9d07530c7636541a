"""The distribution `vdisk`: the ceph-mgr module, and `vdisk-install`, which puts it where a mgr finds it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """Return the version, which is written down in one place."""
    text = (HERE / "src/vdisk_install/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


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
    # rados and rbd come with Ceph's own packages; nothing else is needed at run time.
    install_requires=[],
    entry_points={"console_scripts": ["vdisk-install = vdisk_install.cli:main"]},
    zip_safe=False,
    classifiers=[
        "Environment :: Plugins",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: System :: Filesystems",
    ],
)
