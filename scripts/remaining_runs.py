"""remaining_runs.py MARKER...: number of runs whose marker is missing, and their estimated time.

remaining_runs.py --sweeps bc,cutoff [OVERRIDE...]: the same for the jobs of sweeps of conf/sweep.
"""

import argparse
from pathlib import Path

import hydra

from masa.cli.config_store import conf_dir
from masa.cli.sweep import FINISHED, job_directories


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", help="names, joined by commas")
    parser.add_argument("--minutes", type=int, default=4, help="of one run on 2 cores")
    parser.add_argument("arguments", nargs="*", help="markers, or overrides of the sweeps")
    args = parser.parse_args()
    markers = [Path(marker) for marker in args.arguments]
    if args.sweeps:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            markers = [
                directory / FINISHED
                for name in args.sweeps.split(",")
                for directory in job_directories("config", [f"+sweep={name}", *args.arguments])
            ]
    count = sum(not marker.exists() for marker in markers)
    hours, minutes = divmod(args.minutes * count, 60)
    runs = "1 run" if count == 1 else f"{count} runs"
    time = (
        f", about {args.minutes} minutes each on 2 cores: {hours} h {minutes} min" if count else ""
    )
    print(f"{runs} left of {len(markers)}{time}", flush=True)


if __name__ == "__main__":
    main()
