"""The documentation site, which `make docs` writes into target/docs-site.

Sphinx reads the documents where they are, so a link works here as on a host of Git. The site
is read from its files: it loads nothing from the network, and its search needs no server.
"""

from fnmatch import fnmatchcase

project = "patgate"
html_title = "patgate"
extensions = ["myst_parser"]
root_doc = "docs/README"

# The repository is read, without code and without what was installed or built.
include_patterns = ["*.md", "docs/**.md", "envoy/*.md", "deploy/**.md"]
include_patterns += ["tests/**.md", "benches/*.md", "fuzz/*.md"]
exclude_patterns = [".*", "**/.*", "target", "crates", "src", "fuzz/target", "tests/integration"]

# Anchors as GitHub makes them, and no syntax that GitHub does not know.
myst_heading_anchors = 6
myst_disable_syntax = ["myst_role", "myst_block_break", "myst_line_comment", "myst_target"]
# GitHub draws the diagrams of architecture.md; here they are shown as they are written.
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "none"
smartquotes = False

html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
templates_path = ["."]
# Who opens the folder finds the first page.
html_additional_pages = {"index": "first.html"}
html_copy_source = False
html_show_copyright = False
html_use_index = False

# The list at the side. A document that no part names is in the last one.
PARTS = {
    "Begin": ["README", "docs/glossary"],
    "Deploy": ["deploy/README", "deploy/*", "envoy/*", "docs/doctor", "docs/ro*"],
    "Operate": ["docs/runbook", "docs/operations", "docs/postgres", "docs/redis", "docs/observing"],
    "Use": ["docs/clients", "docs/models", "docs/apis", "docs/self-service"],
    "Review": ["docs/review", "docs/security", "docs/guarantees", "SECURITY", "docs/performance"],
    "Contribute": ["CONTRIBUTING", "docs/architecture", "docs/token"],
    "More": ["*"],
}


def contents(found: set[str]) -> str:
    """Returns the list at the side, in the syntax of Sphinx."""
    text, listed = "", {root_doc}
    for caption, patterns in PARTS.items():
        names = []
        for pattern in patterns:
            fitting = [name for name in sorted(found) if fnmatchcase(name, pattern)]
            names += [name for name in fitting if name not in listed]
            listed.update(fitting)
        if names:
            # Without a slash, a name would be relative to the page.
            lines = "\n".join(f"/{name}" for name in names)
            text += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"
    return text


def add_contents(app, name: str, source: list[str]) -> None:
    if name == root_doc:
        source[0] += contents(app.env.found_docs)


def setup(app) -> dict[str, bool]:
    app.connect("source-read", add_contents)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
