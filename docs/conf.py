"""The site that ``make docs`` builds of these pages."""

import inspect
import re

from hr_prometheus import __version__

project = "hr-prometheus"
author = copyright = "The hr-prometheus maintainers"  # noqa: A001  # Sphinx' own name
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
smartquotes = False  # options begin with two hyphens

myst_heading_anchors = 3  # the same anchors as on GitHub
autodoc_typehints = "none"  # the signature of instrument() is long enough
python_maximum_signature_line_length = 100
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_title = "hr-prometheus"
html_show_sphinx = False
html_theme_options = {
    "source_repository": "https://github.com/HundredRooms/hr-prometheus/",
    "source_branch": "master",
    "source_directory": "docs/",
}


def show_defaults(_app, _what, _name, value, _options, signature, returns):  # noqa: ANN001, ANN201
    """Show defaults as their values, not by the names of constants that a reader cannot look up."""
    function = value.__init__ if inspect.isclass(value) else value

    def default(match):  # noqa: ANN001, ANN202
        constant = getattr(function, "__globals__", {}).get(match[0])
        return repr(constant) if isinstance(constant, str | float | int | tuple) else match[0]

    return signature and re.sub(r"(?<==)[A-Z_]+\b", default, signature), returns


def setup(app):  # noqa: ANN001, ANN201
    """Connect what is above. Called by Sphinx."""
    app.connect("autodoc-process-signature", show_defaults)
