"""vdisk: virtual disks as a native service of a Ceph cluster."""

try:
    import ceph_module  # noqa: F401  # only inside ceph-mgr
except ImportError:
    pass
else:
    from .module import Module  # noqa: F401
    from .standby import StandbyModule  # noqa: F401
