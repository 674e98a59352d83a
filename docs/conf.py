"""The site that ``make docs`` builds of these pages."""

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
