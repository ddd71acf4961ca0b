"""remaining_runs.py MARKER...: number of runs whose marker is missing, and their estimated time."""

import argparse
from pathlib import Path


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=4, help="of one run on 2 cores")
    parser.add_argument("markers", nargs="*", type=Path)
    args = parser.parse_args()
    count = sum(not marker.exists() for marker in args.markers)
    hours, minutes = divmod(args.minutes * count, 60)
    runs = "1 run" if count == 1 else f"{count} runs"
    time = (
        f", about {args.minutes} minutes each on 2 cores: {hours} h {minutes} min" if count else ""
    )
    print(f"{runs} left of {len(args.markers)}{time}", flush=True)


if __name__ == "__main__":
    main()
