"""The README is the first page of the site (mkdocs.yml)."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

README = Path(__file__).parents[1] / "README.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Its links are those of a page beside the others; what is no page is named only."""
    text = README.read_text().replace("](docs/", "](")
    for name in ("CONTRIBUTING.md", "CITATION.cff"):
        text = text.replace(f"[{name}]({name})", name)
    files.append(File.generated(config, "index.md", content=text))
    return files
