"Sphinx's settings. scripts.site.build copies this file beside the pages."
project, author, copyright = "course_lm", "The course_lm authors", "2026, the course_lm authors"
extensions = ["myst_nb", "sphinx_copybutton", "sphinx-mathjax-offline"]
root_doc = "index"
nb_execution_mode = "off"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
myst_heading_slug_func = "slugs.slug"
html_theme = "sphinx_book_theme"
html_title = "course_lm"
html_static_path = ["static"]
html_favicon = "static/course.svg"
html_context = dict(default_mode="auto")
html_css_files = ["course.css"]
html_show_sphinx = False
html_sourcelink_suffix = ""
html_theme_options = dict(
    repository_url="https://github.com/course-lm/course_lm", repository_branch="main", path_to_docs="nbs",
    use_repository_button=True, use_issues_button=True, use_download_button=True,
    launch_buttons=dict(colab_url="https://colab.research.google.com", notebook_interface="jupyterlab"),
    show_toc_level=2, home_page_in_toc=False, navbar_persistent=[])
suppress_warnings = ["mystnb.unknown_mime_type"]
