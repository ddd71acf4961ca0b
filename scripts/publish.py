"""Put a report into a page: `python scripts/publish.py REPORT_DIR PAGE [--section HEADING]`.

The report replaces the text between `<!-- report -->` and `<!-- /report -->` of the page, and its
figures go into `figures/` beside the page; or one section of it without figures.
"""

import argparse
import re
import shutil
from pathlib import Path

from masa.errors import ConfigError
from masa.markdown import fill_place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, help="directory with report.md")
    parser.add_argument("page", type=Path)
    parser.add_argument("--section", help="only the text and tables under this heading")
    parser.add_argument("--times", type=Path, nargs="*", help="times.txt files of make train")
    args = parser.parse_args()

    drawn, figures = args.report / "figures", args.page.parent / "figures"
    text = (args.report / "report.md").read_text()
    if args.section:
        section = re.search(rf"^## {re.escape(args.section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
        if section is None:
            parser.error(f"{args.report}/report.md has no section {args.section!r}")
        # figures and their captions stay in the full report
        text = re.sub(r"!\[[^\n]*\n\n\*[^\n]*\*\n", "", section[1]).strip() + "\n"
    else:
        text = text.partition("\n")[2].lstrip()
        if not drawn.is_dir():
            parser.error(f"{drawn} is missing")
    if args.times:
        parts = [line for path in args.times for line in path.read_text().splitlines()]
        text += f"\nTime of each part: {', '.join(parts)}.\n"
    try:
        fill_place(args.page, "report", text)
    except ConfigError as error:
        parser.error(str(error))
    if not args.section:
        shutil.rmtree(figures, ignore_errors=True)
        shutil.copytree(drawn, figures)


if __name__ == "__main__":
    main()
