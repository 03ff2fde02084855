"""Errors a user can mend, and the exit code each one ends the command with."""


class TwotowerError(Exception):
    """A failure with one clear message; the command line prints it without a traceback."""

    exit_code = 3


class InputError(TwotowerError):
    """Bad input, found before work starts; the message names key, column or file, and the mend."""

    exit_code = 2


class ConfigError(InputError):
    """A config that can't be run. The message names the dotted key."""


class DataError(InputError):
    """Data that can't be used. The message names the file, column or row group."""


class ResourceError(InputError):
    """The cluster can't give what the config asks for. The message says what is missing."""


class RunError(TwotowerError):
    """Work that started and failed; what was committed before is kept."""


class DivergedError(RunError):
    """Training whose numbers left the finite ones; a search counts it apart from other failures."""


class StoppedError(TwotowerError):
    """Work that was stopped and can be resumed by the same command."""

    exit_code = 4
