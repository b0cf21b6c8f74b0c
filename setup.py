"Everything about the package is in settings.ini; this file only hands it to setuptools."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
readme = here / "README.md"
settings = ConfigParser()
settings.read(here / "settings.ini", encoding="utf-8")
cfg = settings["DEFAULT"]
extras = {extra: cfg[f"{extra}_requirements"].split()
          for extra in ("dev", "browser", "bench", "site", "real")}


def classifiers(cfg):
    "What a package index files the course under."
    stages = {"2": "2 - Pre-Alpha", "3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}
    minors = range(int(cfg["min_python"].split(".")[1]), int(cfg["max_python"].split(".")[1]) + 1)
    return [f"Development Status :: {stages[cfg['status']]}", "Intended Audience :: Education",
            "Intended Audience :: Developers", "Framework :: Jupyter", "Operating System :: OS Independent",
            *(f"Programming Language :: Python :: 3.{minor}" for minor in minors),
            "Topic :: Education", "Topic :: Scientific/Engineering :: Artificial Intelligence"]


setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], license="Apache-2.0",
    author=cfg["author"], author_email=cfg["author_email"], url=cfg["git_url"],
    keywords=cfg["keywords"].split(), license_files=["LICENSE", "NOTICE"], classifiers=classifiers(cfg),
    project_urls={"Changelog": f"{cfg['git_url']}/blob/main/CHANGELOG.md",
                  "Issues": f"{cfg['git_url']}/issues"},
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown", python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=["course_lm", "course_lm.*"]),
    package_data={"course_lm": ["pretrained/*/*", "texts/*", "homework/sheets/*"]}, zip_safe=False,
    install_requires=cfg["requirements"].split(), extras_require=extras,
    entry_points={"console_scripts": cfg["console_scripts"].split(),
                  "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
)
