"""What the user reads when something can't be done."""


class InstallError(Exception):
    """Nothing was changed; the message is one line that a person can act on."""
