"Anchors as Jupyter makes them, so that a link in a notebook is a link on a page: #What-goes-wrong."


def slug(title: str) -> str: return title.strip().replace(" ", "-")
