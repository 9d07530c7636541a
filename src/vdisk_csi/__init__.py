"""A CSI 1.12 driver for vdisk: its controller sends ``ceph vdisk`` commands, its node part attaches and mounts."""
