"""Where everything of one cluster is: one directory, nothing outside it."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

# struct sockaddr_un holds 107 bytes of path; the longest name below the directory is 'asok/client.x.1234567.asok'.
MAX_DIR_LENGTH = 70


@dataclass(frozen=True)
class Layout:
    """Paths below the cluster's directory."""

    dir: Path

    @classmethod
    def create(cls, where: Path | None = None, base_dir: Path | None = None) -> "Layout":
        """Make the directory: exactly `where`, or a new one under `base_dir` (default: the system's temporary one)."""
        if where is not None:
            where.mkdir(parents=True)
            found = where.resolve()
        else:
            base = base_dir or Path(tempfile.gettempdir())
            if len(str(base)) > MAX_DIR_LENGTH - 16:
                base = Path("/tmp")
            found = Path(tempfile.mkdtemp(prefix="vdisk-", dir=base)).resolve()
        if len(str(found)) > MAX_DIR_LENGTH:
            raise ValueError(f"{found}: too long for unix sockets inside; choose a shorter path")
        layout = cls(found)
        for path in (layout.keys, layout.logs, layout.sockets, layout.crash, layout.modules, layout.bin):
            path.mkdir()
        return layout

    @property
    def conf(self) -> Path:
        """The configuration file of daemons and clients."""
        return self.dir / "ceph.conf"

    @property
    def state(self) -> Path:
        """What is needed to find the cluster again from another process (JSON)."""
        return self.dir / "cluster.json"

    @property
    def keys(self) -> Path:
        """The clients' keyring files."""
        return self.dir / "keys"

    @property
    def logs(self) -> Path:
        """The daemons' logs, and what they wrote to the terminal."""
        return self.dir / "log"

    @property
    def sockets(self) -> Path:
        """The daemons' admin sockets."""
        return self.dir / "asok"

    @property
    def crash(self) -> Path:
        """Crash dumps, one directory each."""
        return self.dir / "crash"

    @property
    def modules(self) -> Path:
        """The mgr_module_path: links to the stock modules and to ours."""
        return self.dir / "modules"

    def modules_of(self, ident: str) -> Path:
        """The mgr_module_path of one manager where each has its own."""
        return self.dir / f"modules-{ident}"

    @property
    def bin(self) -> Path:
        """Wrappers, so that plain `ceph` and `rbd` reach this cluster by hand."""
        return self.dir / "bin"

    def keyring(self, entity: str) -> Path:
        """The keyring file of a client."""
        return self.keys / f"{entity}.keyring"

    def data(self, kind: str, ident: str) -> Path:
        """The data directory of a daemon."""
        return self.dir / f"{kind}-{ident}"

    def log(self, name: str) -> Path:
        """The log file of a daemon such as `mgr.x`."""
        return self.logs / f"{name}.log"

    def remove(self) -> None:
        """Remove the directory with all in it."""
        shutil.rmtree(self.dir, ignore_errors=True)
