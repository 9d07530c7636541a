"""Installs the vdisk module where a ceph-mgr finds it: the command ``vdisk-install``."""

#: The one place of the distribution's version; setup.py reads it from here.
__version__ = "0.1.0"
