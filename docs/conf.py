"""Sphinx configuration. Builds offline; with `RESOLVI_SD_DOCS=full`, or on Read the Docs, it runs the notebooks too."""

import inspect
import os
import shutil
from importlib.metadata import version as distribution_version
from pathlib import Path

HERE = Path(__file__).parent
FULL = os.environ.get("RESOLVI_SD_DOCS") == "full" or "READTHEDOCS" in os.environ

project = "resolvi_sd"
author = "resolvi_sd developers"
copyright = author
release = version = distribution_version("resolvi-sd")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
if FULL:
    # Inventories come over the network, which building from a clone must not need.
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "spatialdata": ("https://spatialdata.scverse.org/en/stable/", None),
        "squidpy": ("https://squidpy.readthedocs.io/en/stable/", None),
    }

# The results of the audit are part of another page.
exclude_patterns = ["_build", "**.ipynb_checkpoints", "audit_results.md"]
templates_path = ["_templates"]
html_theme = "sphinx_book_theme"
html_title = "resolvi_sd"
html_theme_options = {"show_toc_level": 2, "navbar_persistent": []}
html_static_path = ["_static"]
html_css_files = ["custom.css"]

default_role = "code"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
numpydoc_show_class_members = False
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache" if FULL else "off"
nb_execution_raise_on_error = True
nb_execution_timeout = 600

# The notebooks live beside the package, where tests run them; Sphinx reads only what is below its own folder.
shutil.copytree(HERE.parent / "tutorials", HERE / "generated" / "tutorials", dirs_exist_ok=True)


def describe_what_is_returned(app, what, name, obj, options, lines):
    """Put the type of the signature above the prose under "Returns", which numpydoc would take for a list of types."""
    start = next((i for i in range(len(lines) - 1) if lines[i] == "Returns" and set(lines[i + 1]) == {"-"}), None)
    if start is None or what == "class" or not callable(obj):
        return
    first = start + 2
    ends = (i for i in range(first, len(lines) - 1) if lines[i] and set(lines[i + 1]) == {"-"})
    end = next(ends, len(lines))
    if lines[first + 1 : first + 2] and lines[first + 1].startswith(" "):
        return  # a type, and an indented description
    returned = inspect.signature(obj).return_annotation
    if returned is inspect.Signature.empty:
        return
    returned = returned if isinstance(returned, str) else inspect.formatannotation(returned)
    lines[first:end] = [f"``{returned}``", *(f"    {line}" if line else "" for line in lines[first:end])]


def setup(app):
    """Sphinx calls this; priorities below 500 come before numpydoc."""
    app.connect("autodoc-process-docstring", describe_what_is_returned, priority=400)
