"""The one exception of the library."""


class LabError(Exception):
    """Something that the reader can put right: one sentence that names the culprit and the way out.

    The command line prints it without a traceback, a panel shows it in a box. Anything else that is raised
    is a fault of the library itself.
    """
