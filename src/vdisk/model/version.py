"""The module's version. It is here because the module is copied without the distribution that it comes from."""

#: That of the distribution (``vdisk_install.__version__``).
VERSION = "0.1.0"
