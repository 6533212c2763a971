"""What mkdocs asks for while it builds.  in: notebooks/*.ipynb   out: pages of the site with their output"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
PAGE = "tutorials/notebooks.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per notebook, and the pictures on it."""
    from nbconvert import MarkdownExporter

    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, resources = MarkdownExporter().from_filename(
            str(notebook), resources={"unique_key": notebook.stem, "output_files_dir": f"{notebook.stem}_files"}
        )
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
        for name, content in resources["outputs"].items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: object, config: MkDocsConfig, files: Files) -> str:
    """List the notebooks on their page."""
    if page.file.src_uri != PAGE:
        return markdown
    names = [notebook.stem for notebook in sorted(NOTEBOOKS.glob("*.ipynb"))]
    listed = [f"- [{title(name)}](../notebooks/{name}.md)" for name in names]
    return markdown + "\n".join(listed or ["There are none yet."]) + "\n"


def title(name: str) -> str:
    """The first heading of a notebook."""
    import json

    cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    lines = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "markdown").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), name)
