"""The one exception that means "you gave me something I cannot use"."""


class UserError(ValueError):
    """Wrong input: a field, file, prompt or device count.

    The message is one readable sentence that names the field or file, its value, and what would be
    right. `main.py` and `python -m convert` print it alone on stderr and exit with code 2.
    """
