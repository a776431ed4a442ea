"""Where the commands start: Ctrl-C ends with its exit code also while libraries are still being imported."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run `nettrim`."""
    try:
        from nettrim.cli import main as run  # noqa: PLC0415  # a second of imports
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


def deploy_main() -> None:
    """Run `nettrim-deploy`."""
    try:
        from nettrim.cli import deploy_main as run  # noqa: PLC0415  # as above
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()
