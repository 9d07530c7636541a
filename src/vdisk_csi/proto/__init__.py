"""The CSI interface: ``csi.proto``, and what is generated from it."""
