"""``python -m laser_search``: the program."""

from __future__ import annotations

import sys

from laser_search.own_packages import check


def main() -> None:
    """Run the program; an installation that is not whole is one sentence and exit code 2."""
    try:
        check()
    except ImportError as error:
        sys.stderr.write(f"laser-search: {error}\n")
        sys.exit(2)
    from cluster.cli import main as run

    run(alone=True)


if __name__ == "__main__":
    main()
