"""Build a release, check it as an index would, and write its notes: ``python scripts/release.py``, or ``make release``.

The wheel, the source distribution and ``NOTES.md`` are left in ``dist/``. Nothing is uploaded, and nothing is tagged.

Exits with a message if the changelog has no section for the version that `budget_guard.__version__` names, or two
versions that are not the same, or if the metadata would be refused.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def version() -> str:
    """The version that the package says."""
    text = (ROOT / "budget_guard" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        sys.exit("budget_guard/__init__.py names no __version__")
    return found[1]


def notes(changelog: str, release: str) -> str:
    """The section of *release*, or of what is not released yet where that names it as the next one.

    Raises:
        ValueError: If there is neither, or it is empty.
    """
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    for section in sections:
        title, _, body = section.partition("\n")
        name = title.strip().strip("[]").split("]")[0].split(" ")[0]
        if name == release or (name == "Unreleased" and re.search(rf"\b{re.escape(release)}\b", body)):
            if not re.search(r"^- ", body, re.MULTILINE):
                raise ValueError(
                    f"CHANGELOG.md says nothing under {title!r}: write down what a user notices of {release}"
                )
            return f"# budget_guard {release}\n\n{body.strip()}\n"
    raise ValueError(f"CHANGELOG.md has no section for {release}: add '## {release}' with what a user notices of it")


def main() -> None:
    """Build, check, write."""
    dist = ROOT / "dist"
    try:
        text = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version())
    except ValueError as error:
        sys.exit(str(error))
    shutil.rmtree(dist, ignore_errors=True)
    build = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--target",
        "sdist",
        "--directory",
        str(dist),
    ]
    subprocess.run(build, check=True, cwd=ROOT)
    files = sorted(map(str, dist.iterdir()))
    if subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files]).returncode:
        sys.exit("An index would refuse this: see above.")
    (dist / "NOTES.md").write_text(text, encoding="utf-8")
    print(f"{len(files)} files and NOTES.md are in {dist}. Upload them with: twine upload dist/*.whl dist/*.tar.gz")


if __name__ == "__main__":
    main()
