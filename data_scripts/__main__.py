"""``python -m data_scripts get NAME``, and by the same door ``check`` and ``draw``."""

import sys


def main() -> None:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    if word == "get":
        from data_scripts.get.command import main as wanted
    elif word == "check":
        from data_scripts.check import main as wanted
    elif word == "draw":
        from data_scripts.draw import main as wanted
    else:
        sys.exit("usage: python -m data_scripts {get,check,draw} ... (each with --help)")
    wanted(sys.argv[2:])


if __name__ == "__main__":
    main()
