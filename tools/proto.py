"""Compiles the CSI interface to Python, beside its .proto file, where it is missing or older than that.

Several test runs may do so at once, so the results are put in place whole.
"""

import os
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

SRC = Path(__file__).resolve().parents[1] / "src"
PROTO = "vdisk_csi/proto/csi.proto"
RESULTS = ("csi_pb2.py", "csi_pb2.pyi", "csi_pb2_grpc.py")


def main() -> int:
    """Compile if there is need to; returns the exit code of protoc."""
    source = SRC / PROTO
    targets = [source.with_name(name) for name in RESULTS]
    if all(target.exists() and target.stat().st_mtime >= source.stat().st_mtime for target in targets):
        return 0
    include = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory(dir=source.parent) as work:
        out = [f"--{kind}={work}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
        failed = int(protoc.main(["protoc", f"-I{SRC}", f"-I{include}", *out, PROTO]))
        if failed:
            return failed
        for target in targets:
            os.replace(Path(work) / PROTO.rpartition("/")[0] / target.name, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
