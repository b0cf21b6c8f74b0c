"Everything about the package is in settings.ini; this file only hands it to setuptools."
import re, sys
from configparser import ConfigParser
from pathlib import Path

here = Path(__file__).parent
readme = here / "README.md"
settings = ConfigParser()
settings.read(here / "settings.ini", encoding="utf-8")
cfg = settings["DEFAULT"]
DATA = ["py.typed", "records/*", "pretrained/*/*", "texts/*", "homework/sheets/*",
        "jupyter/labconfig/*"]
EXTRAS = "lessons", "dev", "browser", "bench", "site", "real"
extras = {extra: cfg[f"{extra}_requirements"].split() for extra in EXTRAS}
oldest, newest = (tuple(map(int, cfg[f"{end}_python"].split("."))) for end in ("min", "max"))


def refusal(version):
    "Why this Python cannot be had, in a sentence; nothing where it can."
    here, needs = ".".join(map(str, version[:2])), f"{cfg['lib_name']} needs Python"
    if tuple(version[:2]) < oldest: return f"{needs} {cfg['min_python']} or newer, and this is {here}."
    if tuple(version[:2]) <= newest: return ""
    return f"{needs} {cfg['max_python']} or older, and this is {here}: {cfg['next_python']}."


def classifiers(cfg):
    "What a package index files the course under."
    stages = {"2": "2 - Pre-Alpha", "3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}
    return [f"Development Status :: {stages[cfg['status']]}", "Intended Audience :: Education",
            "Intended Audience :: Developers", "Framework :: Jupyter", "Operating System :: OS Independent",
            "Programming Language :: Python :: 3", "Programming Language :: Python :: 3 :: Only",
            *(f"Programming Language :: Python :: 3.{minor}" for minor in range(oldest[1], newest[1] + 1)),
            "Natural Language :: English", "Topic :: Text Processing :: Linguistic", "Typing :: Typed",
            "Topic :: Education", "Topic :: Scientific/Engineering :: Artificial Intelligence"]


def anywhere(text):
    "The README with links that lead into the repository from wherever it is shown, pictures too."
    inside = r"(?!https?:|mailto:|#)([^)\s]+)\)"
    there = f"{cfg['git_url']}/{{}}/{cfg['branch']}"
    text = re.sub(r"(!\[[^\]]*\]\()" + inside, rf"\g<1>{there.format('raw')}/\g<2>)", text)
    return re.sub(r"(\]\()" + inside, rf"\g<1>{there.format('blob')}/\g<2>)", text)


def main():
    "Hand it over."
    from setuptools import find_packages, setup
    setup(
        name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], license="Apache-2.0",
        author=cfg["author"], author_email=cfg["author_email"], url=cfg["git_url"],
        keywords=cfg["keywords"].split(), license_files=["LICENSE", "NOTICE"], classifiers=classifiers(cfg),
        project_urls={"Changelog": f"{cfg['git_url']}/blob/{cfg['branch']}/CHANGELOG.md",
                      "Source": cfg["git_url"], "Issues": f"{cfg['git_url']}/issues"},
        long_description=anywhere(readme.read_text(encoding="utf-8")) if readme.exists() else "",
        long_description_content_type="text/markdown",
        python_requires=f">={cfg['min_python']},<3.{newest[1] + 1}",
        packages=find_packages(include=["course_lm", "course_lm.*"]),
        package_data={"course_lm": DATA},
        zip_safe=False,
        install_requires=cfg["requirements"].split(), extras_require=extras,
        entry_points={"console_scripts": cfg["console_scripts"].split(),
                      "nbdev": [f"{cfg['lib_path']}={cfg['lib_path']}._modidx:d"]},
    )


if __name__ == "__main__":
    if refusal(sys.version_info): sys.exit(refusal(sys.version_info))
    main()
